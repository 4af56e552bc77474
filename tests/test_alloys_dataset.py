"""Pairs of phases, and the examples made of them."""

import numpy as np
import pytest

from crystaljax.alloys.composition import Candidate, fractions, read_candidate
from crystaljax.alloys.dataset import PairsConfig, alloy_examples, candidates
from crystaljax.text.examples import Chat, Example
from crystaljax.text.prompts import load_template


@pytest.mark.parametrize("volumes", ["normal", "uniform"])
def test_pairs_are_split_whole(volumes: str) -> None:
    phases = [{"Cr": 10.0 * n, "Fe": 100 - 10.0 * n} for n in range(1, 10)]
    compounds = [{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "Co": 1.0}]
    config = PairsConfig(volumes, validation=0.25)  # type: ignore[arg-type]
    training, validation = candidates(phases, compounds, config)
    assert (len(training), len(validation)) == (14 * 3, 4 * 3)
    keys = [{str(one).split("<B2_V")[0] for one in side} for side in (training, validation)]
    assert not keys[0] & keys[1]
    amounts = np.array([one.b2_volume for one in training + validation])
    assert amounts.min() >= 20
    assert amounts.max() <= 70
    assert amounts.std() == pytest.approx(10 if volumes == "normal" else 14.4, abs=3)
    again = candidates(phases, compounds, config)
    assert [str(one) for one in again[0]] == [str(one) for one in training]


def test_examples_are_candidates_as_the_paper_writes_them() -> None:
    alloys = [
        Candidate({"Nb": 67, "Mo": 33}, {"Zr": 1, "Ti": 1, "Ru": 2}, 50.6),
        Candidate({"Cr": 7, "Fe": 13}, {"Ni": 0.5, "Al": 0.5}, 40.0),
    ]
    template = load_template("alloy_triple")
    examples = alloy_examples(alloys, template, ("Al", "Nb"))
    texts = [one.completion for one in examples if isinstance(one, Example)]
    assert texts == [
        "<BCC>Nb67Mo33</BCC> <B2>ZrTiRu2</B2> <B2_Volume>50.6</B2_Volume>",
        "<BCC>Cr35Fe65</BCC> <B2>NiAl</B2> <B2_Volume>40.0</B2_Volume>",
    ]
    for text, alloy in zip(texts, alloys, strict=True):
        back, _ = read_candidate(text)
        assert back is not None
        assert fractions(back.bcc) == pytest.approx(fractions(alloy.bcc))
    assert "Al, Nb" in examples[0].prompt  # type: ignore[union-attr]
    (chat,) = alloy_examples(alloys[:1], template, ("Al", "Nb"), chat=True)
    assert isinstance(chat, Chat)
    assert chat.messages[-1] == {"role": "assistant", "content": texts[0]}
