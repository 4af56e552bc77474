"""The published table 1 with rows of ours."""

import numpy as np
import pytest

from crystaljax.alloys.evaluation.published import PUBLISHED, beside_published
from crystaljax.alloys.evaluation.table_one import TableOne
from crystaljax.evaluation.rates import Measure


def measures(**values: float) -> dict[str, Measure]:
    names = {"recall": "COV-R (%)", "new": "novel (%)", "known": "novel to known (%)"}
    names |= {"reward": "mean reward", "unique": "unique pairs @100"}
    names |= {"pauling": "Pauling valid (%)"}
    named = {names[key]: x for key, x in values.items()}
    return {name: Measure(name, x, abs(x) / 10, "", 9, "") for name, x in named.items()}


def test_rows_stand_with_their_kind() -> None:
    table = TableOne(
        "",
        {
            "SFT": measures(recall=98.6, reward=-17.4, unique=97.9, pauling=10.0),
            "DPO, β = 2": measures(reward=-0.9),
            "DPO": measures(reward=-9.5, new=2.0, known=40.0),
            "random": measures(reward=-350.0, new=60.0),
            "CDVAE": measures(recall=50.0),
            "TPE search": measures(reward=-219.0),
        },
    )
    head, *rows = beside_published(table).rows
    labels = [row[0] for row in rows]
    assert labels[:4] == ["Random search (p)", "random", "CDVAE (p)", "CDVAE"]
    assert labels[labels.index("OLMo SFT (p)") + 1 :] == [
        "SFT",
        *("Gemma DPO (p)", "Llama DPO (p)", "OLMo DPO (p)"),
        *("DPO", "DPO, β = 2", "TPE search"),
    ]
    assert sum(label.endswith("(p)") for label in labels) == len(PUBLISHED) == 17
    cells = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert cells["SFT"]["coverage recall"] == "0.986 ± 0.099"
    assert cells["SFT"]["mean reward"] == "-17.4 ± 1.7"
    assert cells["SFT"]["unique pairs @100"] == "0.979 ± 0.098"
    assert cells["SFT"]["validity (Pauling)"] == "0.100 ± 0.010"
    assert cells["DPO"]["novelty"] == "0.400 ± 0.040"  # to known alloys, where they are given
    assert cells["random"]["novelty"] == "0.600 ± 0.060"
    assert cells["CDVAE"]["mean reward"] == cells["CDVAE (p)"]["mean reward"] == "–"
    assert cells["Llama DPO (p)"]["mean reward"] == "-175.89"


def test_the_published_numbers_keep_the_papers_sentences() -> None:
    """Section 5: DPO improves two of three models; agentic Gemini has the best mean reward."""
    rewards = {name: row.reward for name, row in PUBLISHED.items() if row.reward is not None}
    for model, better in (("Gemma", True), ("Llama", True), ("OLMo", False)):
        assert (rewards[f"{model} DPO"] > rewards[f"{model} SFT"]) == better
    assert max(rewards, key=lambda name: rewards[name]) == "Agentic Gemini-2.5"
    shares = np.array([row[:4] for row in PUBLISHED.values()], float)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert PUBLISHED["CDVAE"].reward is None


@pytest.mark.parametrize("label", ["gemma sft", "Gemma SFT"])
def test_a_row_of_one_model_stands_with_it(label: str) -> None:
    rows = beside_published(TableOne("", {label: measures(reward=-1.0)})).rows
    labels = [row[0] for row in rows]
    assert labels[labels.index(label) - 1] == "Gemma SFT (p)"
