"""Points on the Gibbs energy surfaces of phases, for pycalphad's solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

FICTITIOUS = "_FAKE_"
"""Name of the points that are of no phase, as pycalphad has it."""

_ABOVE = 1e10
"""J/mol of these."""

_ORDERING = (0.02, 0.15, 0.5, 0.9, 0.995)
"""Degrees of ordering that are tried, in parts of the most a direction allows."""

_LITTLE = 0.01
"""Part by which the site fractions of nearly disordered states differ from their mean."""

_SAMPLES = 5
"""Nearly disordered states of the grid, for each point of pycalphad's."""

_WIDTHS = tuple(0.8**n for n in range(14))
"""Of the draws around a point that is refined: standard deviations of log site fractions."""

_VARIANTS = 16
"""Draws of each width."""

_HOPELESS = {3: 3000.0, 5: 1500.0, 7: 600.0, 9: 350.0, 11: 60.0}
"""J/mol above the plane from which a point is given up after the draws of some widths."""

_FILL = 0.1
"""Most that half of the draws add to a site fraction, for each unit of width: none is left out."""

_TINY = 1e-12
"""Least site fraction of a point that is tried."""


@dataclass(frozen=True)
class Points:
    """P points at T temperatures, the first E of them fictitious ones above all others.

    Kept once for all temperatures: pycalphad's own grid repeats what does not change.
    """

    sites: np.ndarray
    """[P, S]: site fractions, padded with nan."""
    compositions: np.ndarray
    """[P, E]: mole fractions."""
    names: np.ndarray
    """[P]: phase names."""
    energy: np.ndarray
    """[T, P]: J/mol of atoms."""
    slices: Mapping[str, slice]
    """Phase name -> its points."""

    def at(self, rows: np.ndarray) -> Points:
        """The points at some of the temperatures."""
        return Points(self.sites, self.compositions, self.names, self.energy[rows], self.slices)

    def driving_force(self, row: int, potentials: np.ndarray) -> np.ndarray:
        """J/mol [P] by which each point lies below the plane of chemical potentials [E]."""
        return self.compositions @ potentials - self.energy[row]

    def with_phases_of(self, other: Points, rows: np.ndarray) -> Points:
        """These points and rows of another set, sorted by phase; the fictitious ones once."""
        n_fake = self.compositions.shape[1]
        width = max(self.sites.shape[1], other.sites.shape[1])
        chosen = [(self, np.arange(n_fake, len(self.names))), (other, rows)]
        names = np.concatenate([points.names[index] for points, index in chosen])
        order = np.argsort(names, kind="stable")

        def joined(parts: list[np.ndarray], fake: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(np.concatenate([fake, np.concatenate(parts)[order]]))

        sites = [_padded(points.sites[index], width) for points, index in chosen]
        energy = np.concatenate([points.energy[:, index] for points, index in chosen], axis=1)
        sorted_names = joined([names], self.names[:n_fake])
        starts = {
            name: np.flatnonzero(sorted_names == name) for name in sorted(set(names.tolist()))
        }
        return Points(
            joined(sites, _padded(self.sites[:n_fake], width)),
            joined([p.compositions[i] for p, i in chosen], self.compositions[:n_fake]),
            sorted_names,
            np.ascontiguousarray(np.concatenate([self.energy[:, :n_fake], energy[:, order]], 1)),
            {name: slice(int(at[0]), int(at[-1]) + 1) for name, at in starts.items()},
        )


def _padded(sites: np.ndarray, width: int) -> np.ndarray:
    return np.pad(sites, [(0, 0), (0, width - sites.shape[1])], constant_values=np.nan)


def from_parts(
    parts: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], n_elements: int, n_rows: int
) -> Points:
    """Points of phases in alphabetical order, after the fictitious ones.

    Of each the name, site fractions [P, S], mole fractions [P, E] and energies [T, P].
    """
    width = max((sites.shape[1] for _, sites, _, _ in parts), default=0)
    ends = np.cumsum([n_elements, *(len(sites) for _, sites, _, _ in parts)]).tolist()
    fictitious = np.full((n_elements, width), np.nan)
    names = np.array([FICTITIOUS, *(name for name, _, _, _ in parts)])
    return Points(
        np.concatenate([fictitious, *(_padded(sites, width) for _, sites, _, _ in parts)]),
        np.concatenate([np.eye(n_elements), *(x for _, _, x, _ in parts)]),
        np.repeat(names, np.diff([0, *ends])),
        np.concatenate([np.full((n_rows, n_elements), _ABOVE), *(e for *_, e in parts)], axis=1),
        {
            name: slice(start, end)
            for (name, *_), start, end in zip(parts, ends[:-1], ends[1:], strict=True)
        },
    )


def from_light_dataset(grid: Any) -> Points:
    """Points from what `pycalphad.calculate(..., fake_points=True, to_xarray=False)` returns."""
    return Points(
        np.array(grid.Y[0, 0, 0]),
        np.array(grid.X[0, 0, 0]),
        np.array(grid.Phase[0, 0, 0]),
        np.array(grid.GM[0, 0]),
        grid.attrs["phase_indices"],
    )


@dataclass(frozen=True)
class Surface:
    """The Gibbs energy surface of one phase, evaluated point by point."""

    record: Any
    """`pycalphad.core.phase_rec.PhaseRecord`."""
    sublattices: tuple[slice, ...]
    """Of the site fractions [S]."""
    state: tuple[float, ...]
    """State variables before the temperature, such as moles and pressure."""

    @property
    def rigid(self) -> bool:
        """Whether the phase has one state alone."""
        return self.sublattices[-1].stop == len(self.sublattices)

    def driving_force(
        self, sites: np.ndarray, temperatures: np.ndarray, potentials: np.ndarray
    ) -> np.ndarray:
        """J/mol [P] of points [P, S] at temperatures [P] below planes of potentials [P, E]."""
        dof = self._freedom(sites, temperatures)
        compositions = self._compositions(dof, potentials.shape[-1])
        return (compositions * potentials).sum(axis=1) - self._energy(dof)

    def sampled(
        self, sites: np.ndarray, temperatures: np.ndarray, n_elements: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mole fractions [P, E] of points [P, S], and J/mol [T, P] at all temperatures [T]."""
        n, t = len(sites), len(temperatures)
        dof = self._freedom(np.tile(sites, (t, 1)), np.repeat(temperatures, n))
        return self._compositions(dof[:n], n_elements), self._energy(dof).reshape(t, n)

    def _freedom(self, sites: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
        """State variables and site fractions, as pycalphad takes them."""
        state = np.broadcast_to(self.state, (len(sites), len(self.state)))
        return np.ascontiguousarray(np.concatenate([state, temperatures[:, None], sites], axis=1))

    def _energy(self, dof: np.ndarray) -> np.ndarray:
        energy = np.zeros(len(dof))
        self.record.prop_2d(energy, dof, b"GM")
        return energy

    def _compositions(self, dof: np.ndarray, n_elements: int) -> np.ndarray:
        compositions = np.zeros((len(dof), n_elements), order="F")
        for n in range(n_elements):
            self.record.mass_obj_2d(compositions[:, n], dof, n)
        return compositions

    def refined(
        self, sites: np.ndarray, temperatures: np.ndarray, potentials: np.ndarray
    ) -> np.ndarray:
        """Points [P, S] moved to larger driving forces, by drawing closer and closer to them.

        Those that stay far above their planes are given up.
        """
        random = np.random.default_rng(0)
        moved = sites.copy()
        left = np.arange(len(sites))  # those that are not given up
        for n, width in enumerate(_WIDTHS):
            sites, rows = moved[left], np.arange(len(left))
            factors = np.exp(width * random.standard_normal((_VARIANTS, *sites.shape)))
            factors[0] = 1
            variants = np.clip(sites * factors, _TINY, None)
            half = variants[_VARIANTS // 2 :]
            half += _FILL * width * random.random(half.shape) ** 4
            for part in self.sublattices:
                variants[..., part] /= variants[..., part].sum(axis=-1, keepdims=True)
            force = self.driving_force(
                variants.reshape(-1, sites.shape[1]),
                np.tile(temperatures[left], _VARIANTS),
                np.tile(potentials[left], (_VARIANTS, 1)),
            ).reshape(_VARIANTS, -1)
            force = np.nan_to_num(force, nan=-np.inf)
            best = force.argmax(axis=0)
            moved[left] = variants[best, rows]
            left = left[force[best, rows] > -_HOPELESS.get(n, np.inf)]
            if not len(left):
                break
        return moved


@dataclass(frozen=True)
class Ordering:
    """The two sublattices of a phase whose occupations differ when it is ordered."""

    first: slice
    """Of the phase's site fractions: those of the one sublattice."""
    second: slice
    """Those of the other; the same constituents in the same order."""
    ratio: float
    """Sites of the first for each of the second."""
    size: int
    """Site fractions of the phase; those of other sublattices are 1."""
    constituents: tuple[str, ...]
    """The K constituents of each of the two, the vacancy included."""

    def at(self, mean: np.ndarray) -> np.ndarray:
        """Variants [V, S] of a mean occupation [K], as `ordered`; see there."""
        sites = np.ones(self.size)
        sites[self.first] = sites[self.second] = mean
        return self.ordered(sites)

    def disordered(self, density: int) -> np.ndarray:
        """States [P, S] that are ordered but a little, over all compositions.

        Not exactly disordered: such a state may be a saddle, which the solver does not leave.
        """
        from pycalphad.core.utils import point_sample

        metals = [n for n, name in enumerate(self.constituents) if name != "VA"]
        edges = [
            share * np.eye(len(metals))[i] + (1 - share) * np.eye(len(metals))[j]
            for i, j in combinations(range(len(metals)), 2)
            for share in np.linspace(0, 1, density + 1)
        ]
        inner = point_sample([len(metals)], pdof=_SAMPLES * density)
        x = np.full((len(edges) + len(inner), len(self.constituents)), _TINY)
        x[:, metals] = np.clip(np.concatenate([*([edges] if edges else []), inner]), _TINY, None)
        x /= x.sum(axis=1, keepdims=True)
        step = x * np.cos(np.arange(x.size)).reshape(x.shape)  # any direction does
        step -= x * step.sum(axis=1, keepdims=True)
        points = np.ones((len(x), self.size))
        points[:, self.first] = x + _LITTLE * step / self.ratio
        points[:, self.second] = x - _LITTLE * step
        return points

    def ordered(self, sites: np.ndarray) -> np.ndarray:
        """Variants [V, S] of site fractions [S]: same composition, other orders, none included.

        One element against another, and one against all others, to several degrees.
        """
        share = self.ratio / (1 + self.ratio)
        mean = share * sites[self.first] + (1 - share) * sites[self.second]
        present = np.flatnonzero(mean > 1e-6)
        directions = [np.zeros_like(mean)]  # no order
        for i, j in combinations(present, 2):
            directions += [_direction(mean, [i], [j])]
        if len(present) > 2:
            directions += [_direction(mean, [i], present[present != i]) for i in present]
        steps = np.array(directions)
        if self.ratio != 1:
            steps = np.concatenate([steps, -steps])
        # Neither sublattice may have less than none of an element.
        reach = np.minimum(_largest_step(mean, steps / self.ratio), _largest_step(mean, -steps))
        steps = (np.array(_ORDERING)[:, None, None] * (steps * reach[:, None])).reshape(
            -1, len(mean)
        )
        variants = np.tile(sites, (len(steps), 1))
        variants[:, self.first] = mean + steps / self.ratio
        variants[:, self.second] = mean - steps
        return np.clip(variants, _TINY, None)


def _direction(mean: np.ndarray, gain: Any, lose: Any) -> np.ndarray:
    """An exchange of the elements `gain` for `lose` in proportion to what is there."""
    direction = np.zeros_like(mean)
    direction[gain] = mean[gain] / mean[gain].sum()
    direction[lose] = -mean[lose] / mean[lose].sum()
    return direction


def _largest_step(mean: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The largest factors [D] of steps [D, K] that leave all of `mean` [K] at or above zero."""
    down = np.maximum(-steps, 1e-30)
    return np.asarray(np.minimum((mean / down).min(axis=1), 1e6))
