"""Figures of a study of RLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax import plots
from crystaljax.composition import N_SPECIES, SYMBOLS, element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.distribution import space_group_shares
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.stability import found_space_group
from crystaljax.experiment.rlip.results import SUN, Line
from crystaljax.experiment.rlip.variants import BASE, FLAGSHIP, PANELS, VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crystaljax.experiment.experiment import Figures

COMPARED = (BASE, "conditional", FLAGSHIP)
"""Variants of the figures of space groups."""


def figures_of(
    lines: Sequence[Line],
    reference: Crystals,
    groups: Sequence[int],
    unseen: Sequence[int],
) -> Figures:
    """All that can be drawn of the lines that have results.

    Args:
      reference: training crystals.
      groups, unseen: space groups of the rates by group.
    """
    done = [line for line in lines if line.results]
    found = {**_curves(done), **_by_group(done, groups, unseen)}
    both = {line.label: line for line in _of_first_model(done, (BASE, FLAGSHIP))}
    if both:
        crystals = {label: line.samples[0].crystals for label, line in both.items()}
        found["space_groups"] = (
            plots.space_group_bars(space_group_series(reference, crystals)),
            "Space groups: of the training crystals as their data say, and of fresh samples as"
            " found of the full cell at 0.01 Å (first seed)",
        )
        energies = {label: line.samples[0].e_above_hull for label, line in both.items()}
        found["energies"] = (
            plots.e_above_hull_histogram(energies),
            "Energy above hull of fresh samples by the judge (first seed)",
        )
        marked = {label: line.samples[0].sun for label, line in both.items()}
        found["compositions"] = (
            composition_map(reference, crystals, marked),
            "Compositions by the first two principal components of what their elements are like:"
            " training crystals (grey), fresh samples, those metastable, unique and novel (large)",
        )
    return found


def space_group_series(
    reference: Crystals, samples: Mapping[str, Crystals]
) -> dict[str, np.ndarray]:
    """float64 [230] by label: shares of space groups of training crystals and of samples.

    Those of samples are found of the full cell, as are the rates by space group: a model may write
    another one.
    """
    found = {label: space_group_shares(found_space_group(x)) for label, x in samples.items()}
    return {"training": space_group_shares(np.asarray(reference.space_group)), **found}


def _of_first_model(lines: Sequence[Line], variants: Sequence[str]) -> list[Line]:
    """Lines of some variants, in their order, of the model that comes first."""
    found = [x for name in variants for x in lines if x.variant == name]
    return [x for x in found if x.model == lines[0].model]


def _curves(lines: Sequence[Line]) -> Figures:
    """Rates over the iterations: of the variants of each panel, and of all models."""
    panels = {
        name: (
            [
                x
                for x in _of_first_model(lines, list(VARIANTS))
                if x.variant == FLAGSHIP or VARIANTS[x.variant].panel == name  # type: ignore[index]
            ],
            caption,
        )
        for name, caption in PANELS.items()
    }
    flagships = [line for line in lines if line.variant == FLAGSHIP]
    panels["models"] = flagships, "RLIP from different models"
    bases = {line.model: line for line in lines if line.variant == BASE}
    found = {}
    for name, (shown, caption) in panels.items():
        is_needed = len(shown) > 1 or (name == "training" and shown)
        if not is_needed:
            continue
        rates: dict[str, dict[str, dict[int, Rate]]] = {}
        for rate in (SUN, f"metastable {SUN}"):
            rates[rate] = {}
            for line in shown:
                start = bases[line.model].curve(rate) if line.model in bases else {}
                rates[rate][line.label] = start | line.curve(rate)
        found[f"iterations_{name}"] = (rates_over_iterations(rates), f"{caption}, by iteration")
    return found


def _by_group(lines: Sequence[Line], groups: Sequence[int], unseen: Sequence[int]) -> Figures:
    """Rates of the space groups of the compared variants."""
    found = {}
    shown = _of_first_model(lines, COMPARED)
    for which, numbers, name, caption in (
        ("groups", groups, "S.S.U.N.", "S.S.U.N. in space groups that RLIP was asked for"),
        ("unseen_groups", unseen, "S.S.U.N.", "S.S.U.N. in other space groups"),
        (
            "unseen_groups",
            unseen,
            "space group met",
            "Share of samples with the space group asked for, in other space groups",
        ),
    ):
        rates = {line.label: line.groups(which, name) for line in shown}
        if rates and all(len(x) == len(numbers) > 0 for x in rates.values()):
            key = f"{which}_{'met' if name == 'space group met' else 'ssun'}"
            found[key] = plots.rates_by_group(rates, numbers), caption
    return found


def rates_over_iterations(rates: Mapping[str, Mapping[str, Mapping[int, Rate]]]) -> Figure:
    """A panel for each rate: {rate: {label: {iterations done: rate}}}, with Wilson's one sigma."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(rates), 3.9), layout="constrained")
    panels = figure.subplots(1, len(rates), squeeze=False).ravel()
    for axes, (name, curves) in zip(panels, rates.items(), strict=True):
        for i, (label, points) in enumerate(curves.items()):
            if not points:
                continue
            at = np.array(list(points)) + 0.05 * (i - (len(curves) - 1) / 2)
            values = np.array([100 * rate.value for rate in points.values()])
            low, high = 100 * np.array([rate.interval(z=1) for rate in points.values()]).T
            colour, marker, line = plots.look(i + 1)
            axes.errorbar(
                *(at, values, np.abs([values - low, high - values])),
                color=colour,
                marker=marker,
                ls=line,
                ms=4,
                lw=1.6,
                elinewidth=0.8,
                label=label,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("iterations")
        axes.set_ylabel(f"{name} (% of samples)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", lw=0.8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def composition_map(
    reference: Crystals, samples: Mapping[str, Crystals], marked: Mapping[str, np.ndarray]
) -> Figure:
    """Compositions in the plane of the first two principal components of `composition_features`.

    Args:
      reference: crystals in the background; features have the unit of their spread among these, and
        the components are those of all together.
      samples: by label; rows that are no crystal are left out.
      marked: bool [N] by label: samples to be drawn large.
    """
    known = composition_features(reference)
    spread = np.maximum(known.std(axis=0), np.finfo(float).eps)
    known = known / spread
    sets = {label: composition_features(x) / spread for label, x in samples.items()}
    places, explained = principal_components([known, *sets.values()])
    figure, axes = plots.chart((6.8, 5.0))
    x, y = places[0].T
    axes.scatter(x, y, s=3, color="0.85", linewidths=0, label=f"training ({len(known)})")
    for i, (label, place) in enumerate(zip(sets, places[1:], strict=True)):
        colour, marker, _ = plots.look(i + 1)
        how: dict[str, Any] = {"color": colour, "marker": marker}
        large = marked[label][np.asarray(samples[label].n_sites) > 0]
        (x, y), (large_x, large_y) = place.T, place[large].T
        axes.scatter(x, y, s=5, alpha=0.4, linewidths=0, **how)
        text = f"{label} ({len(place)}, {large.sum()} large)"
        axes.scatter(large_x, large_y, s=26, ec="white", lw=0.5, label=text, **how)
    axes.set_xlabel(f"first component ({100 * explained[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second component ({100 * explained[1]:.0f} %)")
    axes.legend(frameon=False)
    return figure


def principal_components(sets: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Sets of rows [n, d] in the plane of the two directions of largest variance, [n, 2] each.

    The directions, and the shares of the variance [2] that they explain, are of all rows together.
    """
    rows = np.concatenate(sets)
    mean = rows.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(rows.T, ddof=0).reshape(2 * rows.shape[1:]))
    plane = directions[:, :-3:-1]
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])  # whatever the library
    explained = variances[:-3:-1] / max(variances.sum(), np.finfo(float).tiny)
    return [(x - mean) @ plane for x in sets], explained


def composition_features(crystals: Crystals) -> np.ndarray:
    """float64 [n, 8]: of those of B rows that are crystals, what their elements are like.

    Means and standard deviations over the atoms of the elements' row, group, Mendeleev number and
    electronegativity (0 where there is none).
    """
    counts = element_counts(crystals).astype(np.float64)
    counts = counts[np.asarray(crystals.n_sites) > 0]
    share = counts / counts.sum(axis=1, keepdims=True)
    table = _elements()
    mean = share @ table
    return np.hstack([mean, np.sqrt(np.maximum(share @ table**2 - mean**2, 0))])


@cache
def _elements() -> np.ndarray:
    """float64 [119, 4]: row, group, Mendeleev number, electronegativity (pymatgen's tables)."""
    from pymatgen.core import Element

    found = np.zeros((N_SPECIES, 4))
    for z, symbol in enumerate(SYMBOLS, start=1):
        element = Element(symbol)
        known = (element.data.get(name) for name in ("Mendeleev no", "X"))
        numbers = [x if isinstance(x, int | float) else 0.0 for x in known]
        found[z] = element.row, element.group, *numbers
    return np.nan_to_num(found)
