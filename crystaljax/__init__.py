"""crystaljax: generative materials design in JAX."""

from crystaljax.crystal import AtomicCell, Cells, Crystals

__all__ = ["AtomicCell", "Cells", "Crystals"]
