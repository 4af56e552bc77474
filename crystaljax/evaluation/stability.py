"""Stability, and what counts as a discovery: stable, unique and novel (S.U.N.)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.matching import once
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.rewards.believable import BELIEVABLE, believable
from crystaljax.rewards.potentials.base import Relaxed


@dataclass(frozen=True)
class Thresholds:
    """Energies above hull (eV/atom) up to which a crystal is called stable or metastable."""

    stable: float = 0.0
    """eV/atom, stable at or below."""
    metastable: float = 0.1
    """eV/atom, metastable at or below; papers use 0, 0.08 and 0.1."""


@dataclass(frozen=True)
class EnergiesAboveHull:
    """Energies above hull by one potential."""

    e_above_hull: np.ndarray
    """float64 [N]: eV/atom of every generated sample, nan where it has none."""
    hull: str
    """Names the hull and the potential, like "mp20_bt (14258 entries), CHGNet 0.3.0, unrelaxed"."""
    potential: str
    """The potential's name."""
    n_known: np.ndarray | None = None
    """int [N]: hull entries in the sample's chemical system and its subsystems, if known."""
    relaxed: Relaxed | None = None
    """The samples relaxed, if the energies are of those."""


def keeps_space_group(
    crystals: Crystals, symprec: float = 0.01, cells: Sequence[AtomicCell] | None = None
) -> np.ndarray:
    """Mask of crystals that have, as full cells, the space group they are described with: bool [B].

    A description may have more symmetry than its group says, and then fails. Arguments as of
    `found_space_group`.
    """
    found = found_space_group(crystals, symprec, cells)
    return (found > 0) & (found == np.asarray(crystals.space_group))


def found_space_group(
    crystals: Crystals, symprec: float = 0.01, cells: Sequence[AtomicCell] | None = None
) -> np.ndarray:
    """Space groups of crystals as full cells: int [B], 0 for what is no crystal.

    `symprec` in Å; `cells` [B]: the crystals' primitive cells, if they have been made already.
    """
    from crystaljax.structures import to_cells
    from crystaljax.symmetry.analysis import symmetrize
    from crystaljax.validity import is_crystal

    crystals = crystals.to_numpy()
    groups = np.zeros(len(crystals), np.int64)
    rows = np.flatnonzero(is_crystal(crystals))
    cells = list(to_cells(crystals, primitive=True)) if cells is None else cells
    if len(rows):
        found, _ = symmetrize([cells[row] for row in rows.tolist()], symprec=symprec)
        groups[rows] = np.asarray(found.space_group)
    return groups


def stability_metrics(
    e_above_hull: np.ndarray,
    hull: str,
    *,
    cluster: np.ndarray | None = None,
    novel: np.ndarray | None = None,
    correct_group: np.ndarray | None = None,
    n_known: np.ndarray | None = None,
    reference: str = "",
    thresholds: Thresholds | None = None,
) -> list[Rate | Measure]:
    """Rates of stable, metastable, S.U.N. and S.S.U.N. crystals, and the mean energy above hull.

    Args:
      e_above_hull: [N] eV/atom, of every generated sample; nan (never stable) where it has none.
      hull: name of the reference hull and of the potential, for the table.
      reference: name of the training set that `novel` refers to.
      cluster: int [N], as of `matching.clusters`; without it there is no S.U.N. rate.
      novel, correct_group: bool [N]; the rates that need a missing one are left out.
      n_known: int [N], see `believable`; with it each rate stands there a second time, as
        "believable ...", of the crystals whose energies are believed.

    All rates are over all N generated samples. Of samples that match each other one counts, if any
    of them is stable (and all else that is asked), so that their order does not matter. S.U.N. and
    metastable S.U.N. follow MatterGen (Zeni et al., Nature 639 (2025), 624), S.S.U.N. (the right
    space group as well) SymmCD (Levy et al., ICLR 2025).
    """
    limits = thresholds or Thresholds()
    energy = np.asarray(e_above_hull, np.float64)
    with np.errstate(invalid="ignore"):
        stable, metastable = energy <= limits.stable, energy <= limits.metastable
    low, high = (f"energy above hull ≤ {x:g} eV/atom" for x in (limits.stable, limits.metastable))
    both = f"{hull}; {reference}".strip("; ")
    asked: dict[str, tuple[np.ndarray, np.ndarray | None, str]] = {
        "stable": (stable, None, low),
        "metastable": (metastable, None, high),
    }
    if cluster is not None and novel is not None:
        asked["S.U.N."] = (stable & novel, cluster, f"stable, unique and novel: {low}")
        text = f"metastable, unique and novel: {high}"
        asked["metastable S.U.N."] = (metastable & novel, cluster, text)
        if correct_group is not None:
            text = f"of the space group asked for, {text}"
            asked["S.S.U.N."] = (metastable & novel & correct_group, cluster, text)
    if n_known is not None:
        believed = believable(energy, n_known)
        asked |= {
            f"believable {name}": (mask & believed, unique, f"{text}; {BELIEVABLE}")
            for name, (mask, unique, text) in asked.items()
        }
    metrics: list[Rate | Measure] = [
        Rate.of("energy known", np.isfinite(energy), "the potential and the hull gave an energy")
    ]
    for name, (mask, unique, text) in asked.items():
        counted = mask if unique is None else once(mask, unique)
        of = hull if unique is None else both
        metrics.append(Rate.of(name, counted, text, reference=of))
    said = {"denominator": "samples with an energy", "reference": hull}
    about = ("eV/atom", "energy of the crystal less that of the hull at its composition")
    return [
        *metrics,
        Measure.mean("mean energy above hull", energy, *about, **said),
        Measure.median("median energy above hull", energy, *about, **said),
    ]


def relaxation_metrics(
    displacement: np.ndarray, relaxed: Relaxed, relaxation: str
) -> list[Rate | Measure]:
    """Convergence, match rate, RMSD to the relaxed structures and energy drop.

    `displacement` [N] in Å, nan where a structure does not match its relaxed form
    (`matching.rms_to_relaxed`); `relaxation` names the potential and the optimiser.
    """
    of_relaxed = {"denominator": "samples that were relaxed", "reference": relaxation}
    drop = np.where(relaxed.ok, relaxed.initial_energy - relaxed.energy, np.nan)
    return [
        Rate.of(
            "relaxation converged",
            relaxed.converged,
            "relaxed until all forces were below the threshold",
            reference=relaxation,
        ),
        Rate.of(
            "match to relaxed",
            np.isfinite(displacement),
            "StructureMatcher (default tolerances) matches the sample and its relaxed form",
            reference=relaxation,
        ),
        Measure.mean(
            "RMSD to relaxed",
            displacement,
            "Å",
            "root mean square displacement from the relaxed structure",
            denominator="samples that match their relaxed form",
            reference=relaxation,
        ),
        Measure.median(
            "median energy drop", drop, "eV/atom", "energy lost by relaxation", **of_relaxed
        ),
        Measure.mean(
            "mean relaxation steps",
            np.where(relaxed.ok, relaxed.steps, np.nan),
            "steps",
            "of the optimiser",
            **of_relaxed,
        ),
    ]
