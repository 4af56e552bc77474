"""Points on the Gibbs energy surfaces of phases, for pycalphad's solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

_ORDERING = (0.02, 0.15, 0.5, 0.9, 0.995)
"""Degrees of ordering that are tried, in parts of the most a direction allows."""

_LITTLE = 0.01
"""Part by which the site fractions of nearly disordered states differ from their mean."""

_SAMPLES = 5
"""Nearly disordered states of the grid, for each point of pycalphad's."""

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

    def light_dataset(self) -> Any:
        """The points as pycalphad's solver takes them, without copies."""
        from pycalphad.core.light_dataset import LightDataset

        n_temperatures = len(self.energy)

        def repeated(array: np.ndarray) -> np.ndarray:
            shape = (1, 1, n_temperatures, *array.shape)
            return np.lib.stride_tricks.as_strided(array, shape, (0, 0, 0, *array.strides))

        axes = ["N", "P", "T", "points"]
        variables = {
            "X": ([*axes, "component"], repeated(self.compositions)),
            "Y": ([*axes, "internal_dof"], repeated(self.sites)),
            "Phase": (axes, repeated(self.names)),
            "GM": (axes, self.energy[None, None]),
        }
        coordinates = {"N": np.ones(1), "P": np.ones(1), "T": np.arange(n_temperatures)}
        return LightDataset(variables, coordinates, {"phase_indices": dict(self.slices)})

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
        starts = {name: np.flatnonzero(sorted_names == name) for name in set(names.tolist())}
        return Points(
            joined(sites, _padded(self.sites[:n_fake], width)),
            joined([p.compositions[i] for p, i in chosen], self.compositions[:n_fake]),
            sorted_names,
            np.ascontiguousarray(np.concatenate([self.energy[:, :n_fake], energy[:, order]], 1)),
            {name: slice(int(at[0]), int(at[-1]) + 1) for name, at in starts.items()},
        )


def _padded(sites: np.ndarray, width: int) -> np.ndarray:
    return np.pad(sites, [(0, 0), (0, width - sites.shape[1])], constant_values=np.nan)


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
    vacant: np.ndarray
    """bool [K]: which constituent of the two sublattices is the vacancy."""

    def disordered(self, density: int) -> np.ndarray:
        """States [P, S] that are ordered but a little, over all compositions.

        Not exactly disordered: such a state may be a saddle, which the solver does not leave.
        """
        from pycalphad.core.utils import point_sample

        metals = np.flatnonzero(~self.vacant)
        edges = [
            share * np.eye(len(metals))[i] + (1 - share) * np.eye(len(metals))[j]
            for i, j in combinations(range(len(metals)), 2)
            for share in np.linspace(0, 1, density + 1)
        ]
        inner = point_sample([len(metals)], pdof=_SAMPLES * density)
        x = np.full((len(edges) + len(inner), len(self.vacant)), _TINY)
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
        directions = [np.zeros_like(mean)]
        for i, j in combinations(present, 2):
            directions += [_direction(mean, [i], [j])]
        if len(present) > 2:
            directions += [_direction(mean, [i], present[present != i]) for i in present]
        variants = []
        for direction in directions:
            for degree in _ORDERING:
                for sign in (1, -1) if self.ratio != 1 else (1,):
                    step = sign * degree * direction
                    # Neither sublattice may have less than none of an element.
                    scale = _largest_step(mean, step / self.ratio, -step) if step.any() else 0.0
                    variant = sites.copy()
                    variant[self.first] = mean + min(scale, 1.0) * step / self.ratio
                    variant[self.second] = mean - min(scale, 1.0) * step
                    variants.append(variant)
        return np.clip(np.array(variants), _TINY, None)


def _direction(mean: np.ndarray, gain: Any, lose: Any) -> np.ndarray:
    """The largest exchange of the elements `gain` for `lose` in proportion to what is there."""
    direction = np.zeros_like(mean)
    direction[gain] = mean[gain] / mean[gain].sum()
    direction[lose] = -mean[lose] / mean[lose].sum()
    return direction * min(mean[gain].sum(), mean[lose].sum())


def _largest_step(mean: np.ndarray, *steps: np.ndarray) -> float:
    """The largest factor of the steps that leaves all of `mean` at or above zero."""
    return min(float(np.min(mean[step < 0] / -step[step < 0], initial=np.inf)) for step in steps)
