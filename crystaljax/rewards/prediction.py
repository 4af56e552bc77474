"""Rewards of crystal structure prediction: energies of crystals that have the formula asked for.

`total-energy` is the reward of Hong et al. (Towards Generating Stable Materials via Large Language
Models with Reinforcement Learning Finetuning): minus the potential's total energy per atom, −0.1
for what is no crystal or has more than 20 atoms. The paper penalises other sets of elements too,
and does not say by how much: here they count as no crystal. `hull`, `formation` and `relative` are
what it leaves for the future: minus the energy above hull, the formation energy, and the energy
less that of the best known structure of the same reduced formula by the same potential, all in
eV/atom.

For one composition the four differ by constants, which the advantages of a group do not see: they
are the same reward where ratios are fixed. Where ratios are free, the total energy prefers the
composition that is richest in the element of the lowest energy per atom, whatever its stability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crystaljax.composition import element_counts, formula, formulas
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.ranges import at_least, check
from crystaljax.rewards.asked import AnyReward, Asked, fitting
from crystaljax.rewards.base import Reasons, Reward, RewardBatch
from crystaljax.rewards.bounds import UNNAMED, Quantity, RewardBounds, quantity_of
from crystaljax.rewards.compose import WeightedSum
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.user import load_reward
from crystaljax.symmetry.orbits import n_atoms

EnergyName = Literal["total-energy", "hull", "formation", "relative"]
Ratios = Literal["fixed", "free"]

COLUMNS: dict[EnergyName, str] = {
    "total-energy": "energy_per_atom",
    "hull": "e_above_hull",
    "formation": "formation_energy",
    "relative": "relative_energy",
}
"""Columns of `info` by the name of the reward, which is minus the column."""

QUANTITIES: dict[EnergyName, Quantity] = {
    "total-energy": Quantity("minus total energy", "eV/atom", RewardBounds(invalid=-0.1, low=-0.1)),
    "hull": E_ABOVE_HULL,
    "formation": Quantity("minus formation energy", "eV/atom", RewardBounds(low=-1.0)),
    "relative": Quantity(
        "minus energy relative to the best known", "eV/atom", RewardBounds(low=-3.0, high=0.5)
    ),
}
"""Quantities with bounds. A total energy above 0.1 eV/atom counts as much as a sample that is no
crystal, and not less. Relative energies are only clipped at 3 eV/atom: most first samples of a
formula, which are not relaxed, lie more than 1 eV/atom above the best known structure, and are
still distinguished."""


@dataclass(frozen=True)
class PredictionRewardConfig:
    """Reward of structure prediction."""

    terms: tuple[str, ...] = ("hull",)
    """Sum of NAME or NAME:WEIGHT: total-energy, hull, formation, relative (to the best structure of
    the formula in --setup.train), or FILE.py:FUNCTION of a structure of your own."""
    ratios: Ratios = "fixed"
    """fixed: the crystal has the reduced formula asked for. free: its elements, in any ratio."""
    max_atoms: int = 20
    """Largest number of atoms in the primitive cell."""

    def __post_init__(self) -> None:
        check(self, max_atoms=at_least(1))
        if not self.terms:
            raise ValueError(f"the reward has no term: give some of {', '.join(COLUMNS)}")
        names = [read_term(term)[0] for term in self.terms]
        for name in names:
            if name not in COLUMNS and ":" not in name:
                known = ", ".join(COLUMNS)
                raise ValueError(f"no reward {name!r}: choose {known}, or FILE.py:FUNCTION")
        if len(set(names)) < len(names):
            raise ValueError(f"terms {' '.join(self.terms)}: give each once, with its weight")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        return dict(map(read_term, self.terms))

    @property
    def quantity(self) -> Quantity:
        """The quantity that the reward measures."""
        weights = self.weights
        if weights.keys() <= COLUMNS.keys():
            return _quantity(weights)  # type: ignore[arg-type]
        return UNNAMED

    @property
    def words(self) -> str:
        """The reward, for reports."""
        weights = self.weights
        parts = [name if w == 1 else f"{w:g} × {name}" for name, w in weights.items()]
        return f"{' + '.join(parts)}, ratios {self.ratios}, at most {self.max_atoms} atoms"


def read_term(term: str) -> tuple[str, float]:
    """Name and weight of NAME[:WEIGHT] or FILE.py:FUNCTION[:WEIGHT]."""
    name, colon, last = term.rpartition(":")
    try:
        return (name, float(last)) if colon else (term, 1.0)
    except ValueError:
        return term, 1.0


@dataclass(frozen=True)
class KnownEnergies:
    """Energies of the best known structures, by the same potential that judges samples."""

    least: Mapping[str, float]
    """Reduced formula → eV/atom of the structure of lowest energy."""

    @staticmethod
    def of(
        energies: Reward, known: Crystals, conditions: Sequence[Condition], ratios: Ratios
    ) -> KnownEnergies:
        """Judge the known structures that crystals of `conditions` can be compared with.

        With fixed ratios, they have a formula that is asked for; with free ratios, its elements.
        Structures that cannot be judged are left out.
        """
        counts = element_counts(known)
        wanted = _keys(np.array([asked_content(x) for x in dict.fromkeys(conditions)]), ratios)
        rows = np.flatnonzero(np.isin(_keys(counts, ratios), wanted))
        if not len(rows):
            return KnownEnergies({})
        return KnownEnergies.least_of(formulas(known[rows]), energies(known[rows]))

    @staticmethod
    def least_of(names: Sequence[str], judged: RewardBatch) -> KnownEnergies:
        """The lowest energies of judged structures, by formula; those that are not ok are left
        out."""
        least: dict[str, float] = {}
        for row in np.flatnonzero(judged.ok).tolist():
            energy = float(judged.info["energy_per_atom"][row])
            least[names[row]] = min(energy, least.get(names[row], np.inf))
        return KnownEnergies(least)

    def __call__(self, names: Sequence[str]) -> np.ndarray:
        """float64 [B] in eV/atom, nan for formulas of which nothing is known."""
        return np.array([self.least.get(name, np.nan) for name in names], np.float64)


@dataclass(frozen=True)
class Energies:
    """Minus a weighted sum of energies (eV/atom), named as in `COLUMNS`.

    `info` is that of `energies`, and "relative_energy" if there are known structures. Not ok: what
    `energies` cannot judge; with `relative`, a formula of which no structure is known.
    """

    energies: Reward
    """Reward that computes the energies: `EnergyAboveHull`, possibly with workers and a cache."""
    weights: Mapping[EnergyName, float]
    known: KnownEnergies | None = None
    """Known structures, for `relative`."""

    def __post_init__(self) -> None:
        if unknown := set(self.weights) - set(COLUMNS):
            raise ValueError(f"no energy {sorted(unknown)[0]!r}: choose {', '.join(COLUMNS)}")
        if "relative" in self.weights and self.known is None:
            raise ValueError("energies relative to known structures: give these as `known`")

    @property
    def quantity(self) -> Quantity:
        """Quantity of the energy, if there is one, or of a sum without bounds."""
        return _quantity(self.weights)

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        judged = self.energies(crystals)
        info, reasons = dict(judged.info), list(judged.reasons)
        if not judged.ok.any():  # nor do they have all columns
            return RewardBatch.from_values(judged.value, info, reasons, judged.transient)
        if self.known is not None:
            names = formulas(crystals)
            least = self.known(names)
            info[COLUMNS["relative"]] = info[COLUMNS["total-energy"]] - least
            if "relative" in self.weights:
                for row in np.flatnonzero(np.isnan(least)).tolist():
                    reasons[row] = reasons[row] or f"no known structure of {names[row]}"
        energy = [weight * info[COLUMNS[name]] for name, weight in self.weights.items()]
        return RewardBatch.from_values(-np.sum(energy, axis=0), info, reasons, judged.transient)


@dataclass(frozen=True)
class AsAsked:
    """A reward of only those crystals that are as asked for; the others are not ok.

    The others have other elements than asked for, or (with fixed ratios) another reduced formula,
    or more than `max_atoms` in the primitive cell.
    """

    reward: AnyReward
    ratios: Ratios = "fixed"
    max_atoms: int = 20
    takes_asked: ClassVar[bool] = True

    @property
    def quantity(self) -> Quantity:
        """The reward's."""
        return quantity_of(self.reward)

    def __call__(self, asked: Asked) -> RewardBatch:
        """Rewards of B crystals."""
        reasons = self._reasons(asked)
        rows = np.array([row for row, reason in enumerate(reasons) if reason is None], int)
        if not len(rows):
            return RewardBatch.from_values(np.full(len(asked), np.nan), None, reasons)
        return self.reward(fitting(self.reward, asked[rows])).spread(rows, reasons)

    def _reasons(self, asked: Asked) -> Reasons:
        """Reasons of crystals that are not as asked for."""
        crystals = asked.crystals.to_numpy()
        counts = element_counts(crystals)
        content = np.array([asked_content(x) for x in asked.condition])
        atoms = np.asarray(n_atoms(crystals, primitive=True))
        tests = [
            ("other elements than asked for", ((counts > 0) != (content > 0)).any(axis=1)),
            (f"more than {self.max_atoms} atoms", atoms > self.max_atoms),
        ]
        if self.ratios == "fixed":
            wrong = _keys(counts, "fixed") != _keys(content, "fixed")
            tests.append(("another composition than asked for", wrong))
        reasons: Reasons = [None] * len(asked)
        for reason, wrong in tests:
            for row in np.flatnonzero(wrong).tolist():
                reasons[row] = reasons[row] or reason
        return reasons


def _quantity(weights: Mapping[EnergyName, float]) -> Quantity:
    """The quantity of the energy if there is one, else a sum without bounds."""
    if list(weights.values()) == [1.0]:
        return QUANTITIES[next(iter(weights))]
    parts = (f"{weight:g} × {QUANTITIES[name].name}" for name, weight in weights.items())
    return Quantity(" + ".join(parts), "eV/atom")


def asked_content(condition: Condition) -> np.ndarray:
    """int [119]: atoms in the formula that is asked for; ValueError if none is."""
    content = condition.content
    if content is None:
        raise ValueError(f"{condition} asks for no formula: structures are predicted of formulas")
    return content


def _keys(counts: np.ndarray, ratios: Ratios) -> np.ndarray:
    """str [B]: keys that are equal where the reduced formulas, or the sets of elements, of counts
    [B, 119] are equal."""
    counts = np.asarray(counts)
    return np.array([formula(row > 0 if ratios == "free" else row) for row in counts])


def prediction_reward(
    config: PredictionRewardConfig,
    energies: Reward,
    known: Crystals,
    conditions: Sequence[Condition],
) -> AsAsked:
    """The reward that a configuration describes.

    Args:
      energies: reward that computes the energies of crystals.
      known: structures that energies are relative to. They are judged now, if a term needs it.
      conditions: conditions that samples will be asked to meet.

    Errors: see `user.load_reward`; ValueError if no known structure can be compared with.
    """
    weights: dict[EnergyName, float] = {}
    parts: dict[str, tuple[float, AnyReward]] = {}
    for name, weight in config.weights.items():
        if name in COLUMNS:
            weights[name] = weight
        else:
            parts[name.rpartition(":")[2]] = weight, load_reward(name)
    table = None
    if "relative" in weights:
        table = KnownEnergies.of(energies, known, conditions, config.ratios)
        if not table.least:
            raise ValueError(
                f"none of {len(known)} known structures has a composition that is asked for, and"
                " the reward is relative to them: give others, or another reward"
            )
    if weights:
        parts["energy"] = 1.0, Energies(energies, weights, table)
    alone = len(parts) == 1 and bool(weights)
    reward = parts["energy"][1] if alone else WeightedSum(parts)
    return AsAsked(reward, config.ratios, config.max_atoms)
