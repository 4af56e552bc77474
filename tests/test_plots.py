"""Tests of crystaljax.plots and structure_pictures: what the figures show, not how they look."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import AxesImage, imread

from crystaljax import plots
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.rates import Rate
from crystaljax.structure_pictures import (
    _with_images,
    draw_cell,
    formula_text,
    space_group_text,
    styles,
)


def test_histogram_counts_every_sample() -> None:
    energies = {
        "before": np.array([0.0, 0.05, 0.3, 9.0, np.nan]),
        "after": np.array([-5.0, 0.1, 0.1, 0.1]),
    }
    figure = plots.e_above_hull_histogram(energies, threshold=0.1, limits=(-0.2, 1.5))
    (axes,) = figure.axes
    heights = [np.asarray(patch.get_data().values) for patch in axes.patches]
    before, after = heights[0], heights[2]  # each is drawn filled, then as a line
    assert before.sum() == pytest.approx(4 / 5)  # nan is no bar but stays in the denominator
    assert before[-1] == pytest.approx(1 / 5)
    assert after[0] == pytest.approx(1 / 4)
    assert after.sum() == pytest.approx(1)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("before (40.0 % ≤ 0.1)")
    assert labels[1].startswith("after (100.0 % ≤ 0.1)")
    assert "eV/atom" in axes.get_xlabel()


def test_rates_at_k_by_hand() -> None:
    """Four test crystals: found at the first and the third of three attempts, two never."""
    first = {"all": np.array([1, 0, 3, 0]), "none": np.zeros(0, int), "late": np.array([0, 3])}
    figure = plots.rates_at_k(first, most=3)
    (axes,) = figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}
    assert lines.keys() == {"all (2 / 4)", "late (1 / 2)"}
    np.testing.assert_allclose(lines["all (2 / 4)"], [25, 25, 50])
    np.testing.assert_allclose(lines["late (1 / 2)"], [0, 0, 50])
    low, high = Rate("", 2, 4, "").interval(z=1)
    band = axes.collections[0].get_paths()[0].vertices
    at_last = np.asarray(band)[np.asarray(band)[:, 0] == 3, 1]
    np.testing.assert_allclose([at_last.min(), at_last.max()], [100 * low, 100 * high])
    figure.draw_without_rendering()
    (axes,) = plots.rates_at_k({"all": np.array([1])}, most=1).axes
    assert len(axes.lines) == 1


def test_bars_show_the_commonest() -> None:
    first, second = np.zeros(230), np.zeros(230)
    first[[224, 61]] = 0.6, 0.4
    second[[224, 193, 0]] = 0.5, 0.3, 0.01
    figure = plots.space_group_bars({"data": first, "samples": second}, n_bars=3)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == [r"$Pnma$ 62", r"$P6_3/mmc$ 194", r"$Fm\bar{3}m$ 225"]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([0.4, 0, 0.6, 0, 0.3, 0.5])


def test_element_bars() -> None:
    fractions = np.zeros(119)
    fractions[[8, 26]] = 0.5, 0.2
    figure = plots.element_bars({"data": fractions})
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["O", "Fe"]


def test_training_curves_skip_what_is_not_finite() -> None:
    steps = np.arange(500.0)
    noisy = np.column_stack([steps, np.where(steps == 7, np.nan, 2.0)])
    figure = plots.training_curves({"train": noisy, "validation": noisy[::100]}, "loss (nat)")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "loss (nat)"
    for line in axes.lines:
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), 2.0)
    raw, mean, few = axes.lines
    assert len(raw.get_xdata()) == 499
    assert len(mean.get_xdata()) == 499 - 9 + 1
    assert mean.get_marker() != few.get_marker()
    figure.draw_without_rendering()
    assert all(float(x).is_integer() for x in axes.get_xticks())


def test_every_series_has_a_colour_and_a_shape_of_its_own() -> None:
    looks = [plots.look(i) for i in range(16)]
    assert len({look.colour for look in looks}) == 16
    assert len({(look.marker, look.line) for look in looks}) == 16
    assert plots.look(16).colour == looks[0].colour


def test_every_symbol_of_a_space_group_can_be_drawn() -> None:
    from matplotlib.mathtext import MathTextParser

    parser = MathTextParser("path")
    texts = [space_group_text(group) for group in range(1, 231)]
    for text in texts:
        parser.parse(text)
    assert len(set(texts)) == 230
    assert texts[0] == "$P1$"
    assert texts[13] == "$P2_1/c$"
    assert texts[197] == "$P2_13$"
    assert texts[206] == "$P432$"
    assert formula_text("Ba2NaOsO6") == "Ba$_{2}$NaOsO$_{6}$"


def test_every_element_has_a_style() -> None:
    assert set(styles()) == set(range(1, 119))
    assert all(0.2 < style.radius < 3 for style in styles().values())
    assert all(
        (style.colour >= 0).all() and (style.colour <= 1).all() for style in styles().values()
    )


def test_atoms_on_faces_are_drawn_on_both_sides() -> None:
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5], [0.999, 0.3, 0.4]])
    cell = AtomicCell(np.diag([3.0, 4, 5]), frac, np.array([11, 12, 17, 8]))
    points, species = _with_images(cell)
    assert {z: int((species == z).sum()) for z in cell.species} == {11: 8, 12: 2, 17: 1, 8: 2}
    corners = points[species == 11]
    assert {tuple(corner) for corner in corners} == {
        (x, y, z) for x in (0, 3) for y in (0, 4) for z in (0, 5)
    }


def test_balls_of_a_cell() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    draw_cell(axes, AtomicCell(4.1 * np.eye(3), frac, np.array([55, 17])))
    balls = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    assert len(balls) == 9
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Cl", "Cs"]
    huge = AtomicCell(
        40 * np.eye(3), np.random.default_rng(0).uniform(size=(500, 3)), np.full(500, 6)
    )
    axes = Figure().subplots()
    draw_cell(axes, huge)
    assert "500 atoms" in [text.get_text() for text in axes.texts]


def test_structure_grid_and_pictures(tmp_path: Path) -> None:
    crystals = prototypes(1).crystals[:3].to_numpy()
    failed = Crystals(*(np.zeros_like(x[:1]) for x in vars(crystals).values()))
    crystals = Crystals.concatenate([crystals[:2], failed, crystals[2:]])
    figure = plots.structure_grid(crystals, ["a", "b", "c", "d"], n_columns=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title[-1:] for title in titles] == ["a", "b", "d", ""]
    image = imread(plots.save(figure, tmp_path / "new" / "grid.png"))
    assert image.std() > 0.05
    paths = plots.structure_pictures(crystals, tmp_path / "structures")
    assert [path is None for path in paths] == [False, False, True, False]
    assert all(path.is_file() for path in paths if path is not None)
    (axes,) = plots.structure_grid(failed).axes
    assert axes.texts[0].get_text() == "none of 1 samples is a crystal"
    assert plots.structure_pictures(failed, tmp_path) == [None]


def test_no_global_state_and_no_screen() -> None:
    code = (
        "import sys, numpy as np, crystaljax.plots as p;"
        "assert 'matplotlib' not in sys.modules;"
        "p.e_above_hull_histogram({'x': np.zeros(3)}).savefig('/dev/null', format='png');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rates_by_group_have_bars_and_intervals() -> None:
    def rate(count: int) -> Rate:
        return Rate("S.U.N.", count, 10, "")

    rates = {"base": [rate(0), rate(5)], "RL": [rate(2), rate(10)]}
    (axes,) = plots.rates_by_group(rates, (62, 225)).axes
    assert [bar.get_height() for bar in axes.patches] == [0, 50, 20, 100]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["62", "225"]
    assert "S.U.N." in axes.get_ylabel()


def test_lines_of_equal_merit() -> None:
    points = {"base": (np.array([1.0, 2.0, np.nan]), np.array([5.0, 12.0, 3.0]))}
    (axes,) = plots.merit_scatter(points, levels=(10,)).axes
    (line,) = axes.lines
    gaps, constants = line.get_data()
    np.testing.assert_allclose(gaps * constants, 10)


def test_trade_offs_start_small_and_end_large() -> None:
    curves = {"PPO": (np.array([0.0, 1.0, 2.0]), np.array([-0.5, -0.3, -0.2]))}
    (axes,) = plots.trade_off(curves, "KL", "reward").axes
    start, end = axes.collections
    np.testing.assert_allclose(start.get_offsets(), [[0, -0.5]])
    np.testing.assert_allclose(end.get_offsets(), [[2, -0.2]])
    assert start.get_sizes() < end.get_sizes()
