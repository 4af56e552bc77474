"""Hand-made tables of equilibria, shared by tests."""

import numpy as np

from crystaljax.alloys.engines.thermodynamics import Equilibria, Point, Row

MIXTURE = {"Al": 0.3, "Cr": 0.4, "Ni": 0.3}


def bcc(fraction: float, lattice: float = 2.90) -> Row:
    return Row("BCC_B2", "bcc", False, fraction, {"Cr": 1.0}, lattice)


def b2(fraction: float, lattice: float = 2.93) -> Row:
    return Row("BCC_B2", "bcc", True, fraction, {"Al": 0.5, "Ni": 0.5}, lattice)


def liquid(fraction: float) -> Row:
    return Row("LIQUID", "liquid", False, fraction, MIXTURE)


def sigma(fraction: float) -> Row:
    return Row("SIGMA", "other", False, fraction, {"Cr": 1.0})


def table(*candidates: list[Point], first: float = 400.0, step: float = 100.0) -> Equilibria:
    """Candidates of equally many points, at temperatures from `first` in steps of `step`."""
    n = len(candidates[0])
    return Equilibria.from_points(
        [MIXTURE] * len(candidates), first + step * np.arange(n), candidates
    )
