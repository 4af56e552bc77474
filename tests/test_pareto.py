"""Pareto fronts, against their definition; and their picture."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.pareto import pareto_front, pareto_plot


@given(
    points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20),
    maximised=st.tuples(st.booleans(), st.booleans()),
)
def test_pareto_front_is_what_nothing_dominates(
    points: list[tuple[int, int]], maximised: tuple[bool, bool]
) -> None:
    pairs = np.array(points, float).reshape(-1, 2)
    gain = pairs * np.where(maximised, 1, -1)
    dominated = [
        any((other >= one).all() and (other > one).any() for other in gain) for one in gain
    ]
    front = pareto_front(pairs, maximised)
    assert sorted(front) == [row for row, worse in enumerate(dominated) if not worse]


def test_pareto_plot() -> None:
    rng = np.random.default_rng(0)
    energy, reward = rng.normal(size=(2, 200))
    energy[0], reward[0], energy[1] = 50, -50, np.nan
    pairs = {"before": (energy, reward), "none": (np.full(3, np.nan), np.ones(3))}
    figure = pareto_plot(pairs, "energy", "reward")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "energy, lower is better"
    low, high = axes.get_xlim()
    front = np.asarray(axes.lines[0].get_xdata(), float)
    assert low < front.min() == np.nanmin(energy) and front.max() < high < 50
    said = axes.get_legend().get_texts()[0].get_text()
    shown = np.asarray(axes.collections[0].get_offsets())
    inside = (shown > [low, axes.get_ylim()[0]]) & (shown < [high, axes.get_ylim()[1]])
    assert said == f"before (199, {199 - inside.all(axis=1).sum()} beyond the axes)"
    figure.draw_without_rendering()
