"""Contents of the figures of alloys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from alloy_tables import b2, bcc, liquid, sigma, table
from test_alloys_evaluation_metrics import TEXTS, evaluation
from test_alloys_evaluation_tokens import PIECES, VOLUME, divergence

from crystaljax.alloys.engines.thermodynamics import Row
from crystaljax.alloys.evaluation.figures import (
    element_heat_map,
    phase_fractions,
    reward_against_diversity,
    reward_histogram,
    token_heat_map,
)
from crystaljax.alloys.family import FCC_L12
from crystaljax.plots import save

if TYPE_CHECKING:
    from crystaljax.text.divergence import TokenDivergence


@pytest.fixture
def tokens() -> TokenDivergence:
    """Two texts."""
    pieces = PIECES + VOLUME
    return divergence(pieces, np.linspace(0, 2, len(pieces)).tolist(), copies=2)


def test_phases_are_stacked_by_name(tmp_path: Path) -> None:
    equilibria = table(
        [[b2(1.0)], [b2(1.0)], [b2(1.0)], [b2(1.0)]],
        [[bcc(0.5, 2.9), b2(0.3), sigma(0.2)], [bcc(0.7, 2.91), b2(0.3)], "it hung", [liquid(1.0)]],
    )
    figure = phase_fractions(equilibria, 1, "Cr and NiAl")
    above, below = figure.axes
    labels = [patch.get_label() for patch in above.collections]
    assert labels == ["BCC", "B2", "liquid", "SIGMA"]
    bcc_line, b2_line = (line.get_xydata() for line in below.lines)
    np.testing.assert_array_equal(bcc_line[:, 1], [2.9, 2.91, np.nan, np.nan])
    np.testing.assert_array_equal(b2_line[:, 1], [2.93, 2.93, np.nan, np.nan])
    assert "K" in below.get_xlabel()
    assert save(figure, tmp_path / "phases.png").stat().st_size > 1000


def test_phases_of_another_family() -> None:
    gamma = Row("FCC_L12", "fcc", False, 0.6, {"Ni": 1.0}, 3.58)
    prime = Row("FCC_L12", "fcc", True, 0.4, {"Ni": 0.75, "Al": 0.25}, 3.57)
    equilibria = table([[gamma, prime], [gamma, sigma(0.4)]])
    above, below = phase_fractions(equilibria, family=FCC_L12).axes
    assert [patch.get_label() for patch in above.collections] == ["FCC", "L12", "SIGMA"]
    lattices = [line.get_xydata()[:, 1].tolist() for line in below.lines]
    np.testing.assert_array_equal(lattices, [[3.58, 3.58], [3.57, np.nan]])


def test_an_equilibrium_that_failed_is_drawn(tmp_path: Path) -> None:
    figure = phase_fractions(table(["it hung", "it hung"]))
    save(figure, tmp_path / "none.png")
    assert not figure.axes[0].collections


def test_histogram_holds_every_sample(tmp_path: Path) -> None:
    values = {"SFT": np.array([-2000.0, -1000.05, -0.02, -1e-9]), "DPO": np.array([-0.02, 0.0])}
    (axes,) = reward_histogram(values).axes
    heights = [np.asarray(patch.get_data().values).sum() for patch in axes.patches]
    assert heights == pytest.approx([1, 1, 1, 1])
    left, right = axes.get_xlim()
    assert left > 2000 > right  # better is to the right
    assert len(axes.texts) == 4
    save(axes.figure, tmp_path / "rewards.png")
    ticks = {
        x: text.get_text()
        for x, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    }
    assert ticks[1e-3] == r"$\leq 10^{-3}$"  # the bar of all that cost less
    assert ticks[100.0] == "$ 10^{2}$"


def test_trade_off_shows_means() -> None:
    runs = {"SFT": [evaluation(), evaluation(TEXTS[:2])], "DPO": [evaluation()]}
    (axes,) = reward_against_diversity(runs, diversity="unique pairs @2").axes
    first = axes.containers[0].lines[0].get_xydata()[0]
    expected = [
        np.mean([run[name].value for run in runs["SFT"]])
        for name in ("unique pairs @2", "mean reward")
    ]
    np.testing.assert_allclose(first, expected)
    (axes,) = reward_against_diversity(runs, "all rules", "unique pairs @2").axes
    assert axes.get_ylabel() == "all rules (%)"
    rate = 100 * runs["DPO"][0]["all rules"].value
    assert axes.containers[1].lines[0].get_xydata()[0][1] == pytest.approx(rate)


def test_models_of_the_trade_off_are_told_apart(tmp_path: Path) -> None:
    """As many as `alloys.py small` has, in colours of their own."""
    names = ["random", "SFT", "DPO", "DPO, β = 2", "DPO + anchor", "GRPO", "tpe search"]
    runs = {
        name: [evaluation(TEXTS[: 2 + n % 3]), evaluation(TEXTS)] for n, name in enumerate(names)
    }
    figure = reward_against_diversity(runs, "all rules", "unique pairs @2")
    (axes,) = figure.axes
    colours = [container.lines[0].get_color() for container in axes.containers]
    assert len(set(colours)) == len(names)
    assert axes.get_ylabel() == "all rules (%)"
    save(figure, tmp_path / "trade_off.png")


def test_token_map_has_every_token(tokens: TokenDivergence, tmp_path: Path) -> None:
    figure = token_heat_map(tokens, range(5))
    words = [text.get_text() for text in figure.axes[0].texts]
    expected = [piece.strip() or "·" for piece in PIECES + VOLUME]
    assert words == expected * 2
    assert len(figure.axes[0].patches) == len(words)
    save(figure, tmp_path / "tokens.png")


def test_element_map_has_every_element(tokens: TokenDivergence, tmp_path: Path) -> None:
    figure = element_heat_map(tokens)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["Al", "Cr", "Ni"]
    assert len(figure.axes[0].texts) == 6
    save(figure, tmp_path / "elements.png")
    renamed = {"<BCC>": "<FCC>", "</BCC>": "</FCC>", "<B2>": "<L12>", "</B2>": "</L12>"}
    pieces = [renamed.get(piece, piece) for piece in PIECES + VOLUME]
    others = divergence(pieces, [0.1] * len(pieces))
    ticks = element_heat_map(others, FCC_L12.tags).axes[0].get_xticklabels()
    assert [one.get_text().split()[0] for one in ticks] == ["FCC", "FCC", "L12", "L12"]
