"""Structures of formulas: sampled, relaxed, without duplicates, ranked by energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.attempt_energies import cell_energies
from crystaljax.evaluation.attempts import element_counts_of, ranks
from crystaljax.evaluation.matching import StructureSet, clusters
from crystaljax.policies.base import Params, Policy, Rollout, SamplingConfig
from crystaljax.prediction.formulas import Asked
from crystaljax.progress import working
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.cell_energies import relaxation_of
from crystaljax.rewards.ehull import EnergyAboveHull, relaxation_state
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.structures import to_cells
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.orbits import n_atoms
from crystaljax.validity import structure_valid


@dataclass
class Tally:
    """Samples of one formula, and what became of them."""

    asked: int
    """Number of samples."""
    lost: Counter[str] = field(default_factory=Counter)
    """Number of samples without a structure in the list, by reason (duplicates do not count)."""
    distinct: int = 0
    """Number of structures in the list."""


@dataclass(frozen=True)
class Predictions:
    """M structures of F formulas: formula by formula, best first."""

    asked: Sequence[Asked]
    """[F]"""
    tallies: Sequence[Tally]
    """[F]"""
    crystals: Crystals
    """[M], relaxed if that was asked for."""
    target: np.ndarray
    """int [M]: the formula."""
    rank: np.ndarray
    """int [M]: from 1, within the formula as it was given."""
    attempt: np.ndarray
    """int [M]: from 1, among the structures of all given formulas that are the same when reduced:
    Na2Cl2, and NaCl with two units in the cell."""
    columns: Mapping[str, np.ndarray]
    """[M] each: what is known of them."""
    label: str
    """Names hull, potential and relaxation; what they are ranked by if there is no potential."""
    dead_ends: int = 0
    """Candidates of the samples that came to a dead end (`Rollout.dead_ends`)."""

    def best(self, n: int) -> np.ndarray:
        """Rows of the best structure of each formula; of the best n if there is one formula."""
        if len(set(self.target.tolist())) == 1:
            return np.arange(len(self.target))[:n]
        return np.flatnonzero(self.rank == 1)[:n]


def predict(
    policy: Policy,
    params: Params,
    asked: Sequence[Asked],
    n: int,
    seed: int,
    sampling: SamplingConfig,
    energy: EnergyAboveHull | None,
) -> Predictions:
    """Sample n structures of each formula, drop duplicates, rank them.

    By the energy per atom of `energy`'s potential, after relaxation if it relaxes (of one formula
    that is the order of energies above hull); by the model's likelihood without one. Of structures
    that match each other (`evaluation.matching`), before or after relaxation, the best is kept.
    Samples that are no structure of the formula, or have no energy, are counted by reason.
    Formulas without a condition get none (`formulas.checked`).
    """
    rows = [i for i, one in enumerate(asked) if one.condition is not None]
    conditions = [x for i in rows if (x := asked[i].condition) is not None]
    with working(f"sampling {n} structures of each of {len(conditions)} formulas"):
        rollout = policy.sample(params, [x for x in conditions for _ in range(n)], seed, sampling)
    target = np.repeat(np.array(rows, int), n)
    tallies = [Tally(0 if one.condition is None else n) for one in asked]
    found = _Candidates.of(rollout, target, tallies)
    if energy is None:
        score, label = -found.columns["log_prob"], "none, ranked by the model's likelihood"
    else:
        if energy.relax_steps:  # the same structure need not be relaxed twice
            found = found.take(found.leaders(tallies))
        found, label = found.judged(energy, tallies)
        score = found.columns["energy_per_atom"]
    return replace(found.ranked(asked, tallies, score, label), dead_ends=rollout.dead_ends)


@dataclass(frozen=True)
class _Candidates:
    """K structures that may come into the list."""

    crystals: Crystals
    """[K]"""
    target: np.ndarray
    """int [K]: the formula."""
    columns: dict[str, np.ndarray]
    """[K] each."""

    @staticmethod
    def of(rollout: Rollout, target: np.ndarray, tallies: Sequence[Tally]) -> _Candidates:
        """The samples that are structures of their formulas."""
        reasons = list(rollout.reasons)
        rows = np.flatnonzero(rollout.met)
        if len(rows):
            for row in rows[~structure_valid(rollout.crystals[rows])].tolist():
                reasons[row] = "atoms too close, or a flat cell"
        for i, reason in zip(target.tolist(), reasons, strict=True):
            if reason is not None:
                tallies[i].lost[reason] += 1
        rows = np.array([i for i, reason in enumerate(reasons) if reason is None], int)
        columns = {"times_found": np.ones(len(rows), int), "log_prob": rollout.logp_model[rows]}
        return _Candidates(rollout.crystals[rows], target[rows], columns)

    def take(self, rows: np.ndarray) -> _Candidates:
        """The candidates of some rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return _Candidates(self.crystals[rows], self.target[rows], columns)

    def _count(self, tallies: Sequence[Tally], reasons: Reasons) -> None:
        """Count the samples that are lost for reasons [K]."""
        times = self.columns["times_found"].tolist()
        for i, n, reason in zip(self.target.tolist(), times, reasons, strict=True):
            if reason is not None:
                tallies[i].lost[reason] += n

    def leaders(self, tallies: Sequence[Tally], score: np.ndarray | None = None) -> np.ndarray:
        """The row of least `score` [K] of each formula's duplicates, which counts for them all.

        The likeliest if no score is given.
        """
        samples = StructureSet.from_crystals(self.crystals, "samples")
        cluster = clusters(samples)
        self._count(tallies, [samples.failures.get(row) for row in range(len(cluster))])
        order = np.argsort(-self.columns["log_prob"] if score is None else score, kind="stable")
        order = order[cluster[order] >= 0]
        pairs = np.stack([self.target[order], cluster[order]], axis=1)
        _, first, pair = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        times = np.bincount(pair.ravel(), self.columns["times_found"][order]).astype(int)
        self.columns["times_found"][order[first]] = times
        return np.sort(order[first])

    def judged(self, energy: EnergyAboveHull, tallies: Sequence[Tally]) -> tuple[_Candidates, str]:
        """Candidates with an energy, relaxed if `energy` relaxes, and what the energies are."""
        steps = energy.relax_steps
        cells: Sequence[AtomicCell | None] = list(to_cells(self.crystals, primitive=True))
        nothing: Reasons = [None] * len(cells)
        crystals, columns = self.crystals, dict(self.columns)
        found = cell_energies(energy, cells, nothing, "structures")
        values, reasons = -found.value, found.reasons
        relaxed: Relaxed | None = None
        if steps:
            relaxed = relaxation_of(found)
            cells = relaxed.cells
            crystals, reasons = _symmetrized(relaxed)
            columns["space_group_before"] = np.asarray(self.crystals.space_group)
            columns["energy_before"] = relaxed.initial_energy
            columns["relaxation_steps"], columns["converged"] = relaxed.steps, relaxed.converged
        counts = element_counts_of(cells)
        above = energy.above(counts, values, cells)
        columns["energy_per_atom"] = values
        columns["formation_energy"] = above.formation_energy
        columns["e_above_hull"] = above.e_above_hull
        columns["hull_entries"] = energy.hull.n_known(counts)
        reasons = above.reasons(reasons)
        self._count(tallies, reasons)
        fine = np.array([reason is None for reason in reasons], bool)
        label = f"{energy.label}, {relaxation_state(relaxed, steps)}"
        return _Candidates(crystals, self.target, columns).take(np.flatnonzero(fine)), label

    def ranked(
        self, asked: Sequence[Asked], tallies: Sequence[Tally], score: np.ndarray, label: str
    ) -> Predictions:
        """Without duplicates, formula by formula, those of least `score` [K] first."""
        rows = self.leaders(tallies, score)
        rows = rows[np.lexsort((score[rows], self.target[rows]))]
        found = self.take(rows)
        for i, n in enumerate(np.bincount(found.target, minlength=len(asked)).tolist()):
            tallies[i].distinct = n
        atoms = np.asarray(n_atoms(found.crystals, primitive=True))
        columns = {"atoms_in_primitive_cell": atoms, **found.columns}
        return Predictions(
            asked,
            tallies,
            found.crystals,
            found.target,
            ranks(found.target) + 1,
            _attempts([one.formula for one in asked], found.target, score[rows]),
            columns,
            label,
        )


def _attempts(reduced: Sequence[str], target: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Numbers int [M] from 1 of structures of each reduced formula, those of least score first.

    `reduced` [F]: formulas; `target` int [M]: the formula of each structure; `score` [M].
    """
    _, kind = np.unique(reduced, return_inverse=True)
    order = np.argsort(score, kind="stable")
    found = np.empty(len(target), int)
    found[order] = ranks(kind[target[order]]) + 1
    return found


def _symmetrized(relaxed: Relaxed) -> tuple[Crystals, Reasons]:
    """Relaxed structures as crystals; zero, with the reasons, where there is none."""
    rows = np.flatnonzero(relaxed.ok)
    cells = [cell for cell in relaxed.cells if cell is not None]
    found, unfit = symmetrize(cells)
    reasons = list(relaxed.reasons)
    for row, reason in zip(rows.tolist(), unfit, strict=True):
        reasons[row] = reason
    place = np.full(len(relaxed.cells), len(cells))
    place[rows] = np.arange(len(cells))
    return found.padded(len(cells) + 1)[place], reasons
