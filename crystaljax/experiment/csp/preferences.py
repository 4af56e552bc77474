"""The ratio of two elements that each reward prefers where the ratio is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crystaljax.composition import SYMBOLS, formula
from crystaljax.evaluation.rates import Measure
from crystaljax.evaluation.report import Table

TIE = 1e-6
"""eV/atom within which formulas are preferred alike."""


@dataclass(frozen=True)
class System:
    """Two elements, and the best structure of each of F formulas of them."""

    elements: tuple[int, int]
    """Atomic numbers; the first is the element of the lower reference energy per atom."""
    formulas: list[str]
    """[F]"""
    share: np.ndarray
    """float64 [F]: atoms of the first element among all."""
    energies: Mapping[str, np.ndarray]
    """float64 [F] in eV/atom by name of the reward, which is minus this energy."""

    def preferred(self, name: str) -> np.ndarray:
        """float64 [F]: probabilities of the formulas of least energy, equal where several are."""
        energy = self.energies[name]
        best = energy <= energy.min() + TIE
        return best / best.sum()


def rows_of_pairs(counts: np.ndarray, n: int = 0, seed: int = 0) -> np.ndarray:
    """Rows (int [R]) of structures of pairs of elements of which there are several formulas.

    Args:
      counts: int [B, 119], atoms of each element.
      n: pairs, drawn by the seed; all if 0.
    """
    rows = np.flatnonzero((counts > 0).sum(axis=1) == 2)
    of_pair: dict[tuple[int, ...], list[int]] = {}
    for row in rows.tolist():
        of_pair.setdefault(tuple(np.flatnonzero(counts[row]).tolist()), []).append(row)
    pairs = [x for x in of_pair.values() if len({formula(counts[row]) for row in x}) > 1]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[: n or None]
    return np.array([row for i in chosen for row in pairs[i]], int)


def systems_of(
    counts: np.ndarray, energies: Mapping[str, np.ndarray], references: np.ndarray
) -> list[System]:
    """Systems of two elements with two formulas or more among B structures.

    Args:
      counts: int [B, 119], atoms of each element.
      energies: by reward, float64 [B] in eV/atom; structures that lack one are left out.
      references: float64 [119] in eV/atom, energies of the elements.

    Of each formula the structure of the least total energy counts: polymorphs of one formula have
    the same order in all rewards.
    """
    known = np.isfinite(np.stack(list(energies.values()))).all(axis=0)
    first = next(iter(energies.values()))
    best: dict[tuple[int, ...], dict[str, int]] = {}
    for row in np.flatnonzero(known & ((counts > 0).sum(axis=1) == 2)).tolist():
        elements = tuple(np.flatnonzero(counts[row]).tolist())
        of_system = best.setdefault(elements, {})
        name = formula(counts[row])
        if name not in of_system or first[row] < first[of_system[name]]:
            of_system[name] = row
    systems = []
    for elements, rows in best.items():
        if len(rows) > 1:
            low, high = sorted(elements, key=lambda z: references[z])
            at = np.array(list(rows.values()))
            share = counts[at, low] / counts[at].sum(axis=1)
            of_rewards = {name: np.asarray(column)[at] for name, column in energies.items()}
            systems.append(System((low, high), list(rows), share, of_rewards))
    return systems


def preference_table(systems: list[System], hull: str = "hull") -> Table:
    """Preferences of each reward, as means over the systems with standard errors.

    `hull`: the name of the reward that is minus the energy above hull.
    """
    header = [
        *("reward", "richest in the element of lower energy", "richest in the heavier element"),
        *("most stable of its system", "energy above hull of the preferred (eV/atom)"),
    ]
    rows = []
    for name in systems[0].energies:
        p = [system.preferred(name) for system in systems]
        columns = [
            [x[system.share.argmax()] for x, system in zip(p, systems, strict=True)],
            [x[_heavier(system).argmax()] for x, system in zip(p, systems, strict=True)],
            [x @ system.preferred(hull).astype(bool) for x, system in zip(p, systems, strict=True)],
            [x @ system.energies[hull] for x, system in zip(p, systems, strict=True)],
        ]
        means = [Measure.mean("", np.array(column, float), "", "") for column in columns]
        cells = [f"{100 * x.value:.1f} ± {100 * x.standard_error:.1f} %" for x in means[:-1]]
        rows.append([name, *cells, means[-1].text])
    caption = (
        f"The formula that a reward prefers in each of {len(systems)} systems of two elements with"
        " several known formulas"
    )
    return Table(caption, [header, *rows])


def example_table(systems: list[System], n: int = 8) -> Table:
    """Systems in which the total energy and the hull differ most, and what each reward prefers."""

    def loss(system: System) -> float:
        chosen = system.preferred("total-energy")
        return float(chosen @ system.energies["hull"] - system.energies["hull"].min())

    chosen = sorted(systems, key=loss, reverse=True)[:n]
    names = list(systems[0].energies)
    rows = []
    for system in chosen:
        said = []
        for name in names:
            p = system.preferred(name)
            some = [system.formulas[i] for i in np.flatnonzero(p)]
            said.append(" / ".join(some) if len(some) < len(p) else "any")
        symbols = "-".join(SYMBOLS[z - 1] for z in system.elements)
        rows.append([symbols, " ".join(system.formulas), *said, f"{loss(system):.3f}"])
    header = ["", "known formulas", *names, "loss of total-energy (eV/atom above hull)"]
    return Table("Where the total energy chooses worst", [header, *rows])


def _heavier(system: System) -> np.ndarray:
    """float64 [F]: atoms of the heavier element among all."""
    first, second = system.elements
    return system.share if first > second else 1 - system.share
