"""Texts that experiments learn from: formats with options, augmentation, tokens of their own."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from crystaljax.composition import SYMBOLS, atomic_number, formulas
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.experiment.llm_setup import TextsConfig
from crystaljax.experiment.sft import fitting
from crystaljax.experiment.texts import Texts, plain, read_texts, sequences
from crystaljax.models.llm.config import LlmConfig
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.text.examples import Example
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.text.packing import TokenSequence
from crystaljax.text.prompts import load_template
from crystaljax.tokenizations.registry import create_format

TINY = LlmConfig(width=16, mlp_width=32, n_layers=1, n_heads=2, n_kv_heads=2, head_size=8)


def completions(texts: Texts) -> list[str]:
    return [x.completion for x in texts.examples]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["wyckoff-bins:coordinate_width=0.005", "coordinates"])
def test_augmentation(name: str) -> None:
    """Several texts of each crystal to learn, of the same formulas; validation stays as it is."""
    plainly = TextsConfig(format=name, max_sites=2)
    metadata = TextMetadata.of(name, [load_template("formula")])
    once, validation = read_texts(plainly, metadata, False)
    augmented = TextsConfig(format=name, max_sites=2, augment=3)
    train, same = read_texts(augmented, metadata, False)
    assert same.examples == validation.examples
    assert read_texts(augmented, metadata, False)[0].examples == train.examples
    assert len(train.examples) == 3 * len(once.examples)
    assert Counter(train.asked) == {name: 3 * n for name, n in Counter(once.asked).items()}
    assert len(set(completions(train))) > 1.5 * len(set(completions(once)))
    format = create_format(name)
    read = format.decode(completions(train)[::29])
    asked = train.asked[::29]
    np.testing.assert_array_equal(formulas(read.crystals[read.ok]), np.array(asked)[read.ok])
    assert read.ok.mean() > 0.99


def test_augmentation_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="augment must be at least 0"):
        TextsConfig(augment=-1)
    with pytest.raises(ValueError, match="texts of a file cannot be augmented"):
        TextsConfig(file=tmp_path / "texts.jsonl", augment=2)


def test_a_model_with_the_words_of_a_format() -> None:
    """Words of the format are tokens, prompts are cut into symbols and characters."""
    name = "wyckoff-bins:coordinate_width=0.01,length_width=0.1,angle_width=1"
    metadata = TextMetadata.of(name, [load_template("formula")])
    train, validation = read_texts(TextsConfig(max_sites=1), metadata, False)
    model = TextModelConfig(small=TINY, cutting="own")
    learnt, format = [*plain(train), *plain(validation)], create_format(name)
    policy = load_text_policy(model, learnt, format)
    written = completions(train)[:20]
    assert [len(x) for x in policy.tokenizer.encode(written)] == [len(x.split()) for x in written]
    assert policy.config.vocabulary == policy.tokenizer.n_vocabulary() > 2000
    with pytest.raises(ValueError, match="a vocabulary of 512 is too small for 20"):
        load_text_policy(TextModelConfig(cutting="own", n_vocabulary=512), learnt, format)
    with pytest.raises(ValueError, match="there is no vocabulary of its own"):
        load_text_policy(model, learnt)
    with pytest.raises(ValueError, match="a pattern for symbols, and cutting bpe"):
        TextModelConfig(pattern=".")


def data_with_properties(folder: Path, n: int = 60) -> Path:
    """A file of small crystals with properties, some of them missing."""
    crystals = load("prototypes").crystals
    crystals = crystals[np.flatnonzero(np.asarray(crystals.n_sites) == 2)[:n]]
    numbers = np.arange(n) / 100
    properties = {
        "band_gap": np.where(np.arange(n) % 3, numbers, np.nan),
        "e_above_hull": numbers,
        "formation_energy_per_atom": -numbers,
    }
    return write(crystals, folder / "crystals.csv", properties)


FIELDS = {
    "formula": "formula",
    "space group": "space_group",
    "formation energy": "formation_energy_per_atom",
    "energy above hull": "e_above_hull",
    "band gap": "band_gap",
}
"""Fields by what they are called in prompts."""

MIX = ("infilling", "unconditional", "properties")


def test_the_mixture_of_tasks(tmp_path: Path) -> None:
    """Shares, numbers of properties, hidden elements; anew each epoch, and always the same."""
    path = data_with_properties(tmp_path)
    config = TextsConfig(crystals=str(path), templates=MIX, redraw=True)
    metadata = TextMetadata.of("plaid", map(load_template, MIX))
    train, validation = read_texts(config, metadata, False, n_epochs=100)
    same, _ = read_texts(config, metadata, False, n_epochs=100)
    assert same.every == train.every
    few, alike = read_texts(config, metadata, False, n_epochs=2)
    assert few.every == train.every[: 2 * len(train.examples)]
    assert validation.examples == alike.examples and not validation.later
    assert len(train.later) == 99
    by_row: dict[int, set[str]] = {}
    tasks, numbers = Counter[str](), Counter[int]()
    format, n = create_format("plaid"), len(train.examples)
    told = format.encode(train.crystals)  # type: ignore[arg-type]
    for i, example in enumerate(train.every):
        assert isinstance(example, Example)
        by_row.setdefault(i % n, set()).add(example.prompt)
        text = told[i % n]
        if "?" in example.prompt:
            tasks["infilling"] += 1
            assert example.completion in SYMBOLS
            after = example.prompt.split("\n", 1)[1]
            assert sorted(after.replace("?", example.completion)) == sorted(text + "\n")
            continue
        assert example.completion == text
        tasks["unconditional" if example.prompt == "A crystal:\n" else "properties"] += 1
        if example.prompt != "A crystal:\n":
            row = train.rows[i % n]
            parts = example.prompt.removeprefix("A crystal, ").removesuffix(":\n").split(", ")
            for part in parts:
                name, value = part.replace(" eV/atom", "").replace(" eV", "").rsplit(" ", 1)
                known = row[FIELDS[name]]
                if isinstance(known, str):
                    assert value == known
                else:
                    assert float(value) == pytest.approx(known, abs=0.006)
            numbers[len(parts)] += "band_gap" in row
    for name in MIX:
        assert abs(tasks[name] / len(train.every) - 1 / 3) < 0.03
    total = sum(numbers.values())
    assert set(numbers) == {1, 2, 3, 4, 5}
    assert all(abs(x / total - 0.2) < 0.05 for x in numbers.values())
    assert min(map(len, by_row.values())) > 10  # of 18 at least, in 100 epochs
    generating = set(train.generating.tolist())
    assert {i for i, x in enumerate(train.examples) if "?" not in x.prompt} == generating  # type: ignore[union-attr]
    assert len(train.conditions) == len(generating)


def test_shares_of_templates(tmp_path: Path) -> None:
    path = data_with_properties(tmp_path)
    names = ("formula", "unconditional")
    metadata = TextMetadata.of("wyckoff-text", map(load_template, names))
    config = TextsConfig(crystals=str(path), templates=names, weights=(1, 3), redraw=True)
    train, _ = read_texts(config, metadata, False, n_epochs=60)
    share = np.mean([x.prompt == "A crystal:\n" for x in train.every])  # type: ignore[union-attr]
    assert abs(share - 0.75) < 0.03
    never = dataclasses.replace(config, weights=(0, 1))
    train, _ = read_texts(never, metadata, False)
    assert set(train.asked) == {"anything"}
    with pytest.raises(ValueError, match="1 weights of 2 templates"):
        dataclasses.replace(config, weights=(1,))
    with pytest.raises(ValueError, match="not all of them 0"):
        dataclasses.replace(config, weights=(0, 0))


@pytest.mark.parametrize("augment", [0, 2])
def test_prompts_that_are_drawn_once_are_as_before(tmp_path: Path, augment: int) -> None:
    """Templates are chosen by the same numbers as in runs from before there were mixtures."""
    names = ("formula", "unconditional", "space_group")
    metadata = TextMetadata.of("wyckoff-text", map(load_template, names))
    config = TextsConfig(
        crystals=str(data_with_properties(tmp_path)), templates=names, augment=augment
    )
    train, _ = read_texts(config, metadata, False, n_epochs=5)
    rng = np.random.default_rng([config.seed, 1_000_003])
    expected = [int(rng.integers(3)) for _ in train.examples]
    kinds = [1 if asked == "anything" else 2 if asked.isdigit() else 0 for asked in train.asked]
    assert kinds == expected
    assert not train.later


def test_hidden_elements_in_random_descriptions(tmp_path: Path) -> None:
    """Of every format's augmentation; each text with its own element."""
    config = TextsConfig(
        crystals=str(data_with_properties(tmp_path)), templates=("infilling",), augment=2
    )
    metadata = TextMetadata.of("p1-bins", [load_template("infilling")])
    train, _ = read_texts(config, metadata, False)
    assert train.crystals is not None
    assert len(train.generating) == 0
    species = np.asarray(train.crystals.species)
    for example, row in zip(train.examples, species, strict=True):
        assert isinstance(example, Example)
        assert atomic_number(example.completion) in row
        assert "\n?:" in example.prompt
        assert f"\n{example.completion}:" not in example.prompt


def test_texts_that_fit_are_tokenized_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the tokens that they have by themselves, in all epochs; the others are left out."""
    examples: list[Any] = [Example("MgO", "Mg O"), Example("C", "C"), Example("NaCl", "Na Cl " * 9)]
    later = [[Example("O", "Mg O"), Example("x", "C"), Example("Na", "Na Cl " * 9)]]
    data = load("prototypes")[:3]
    rows: list[dict[str, Any]] = [{}] * 3
    texts = Texts(examples, ["a", "b", "c"], data.crystals, rows, [None] * 3, later)  # type: ignore[list-item]
    size = dataclasses.replace(TINY, max_length=24)
    policy = load_text_policy(TextModelConfig(small=size, n_vocabulary=300), ["MgO", "NaCl"])
    calls: list[int] = []

    def counted(policy: TextPolicy, texts: Texts) -> list[TokenSequence]:
        calls.append(len(texts.examples))
        return sequences(policy, texts)

    monkeypatch.setattr("crystaljax.experiment.sft.sequences", counted)
    kept, tokens = fitting(policy, texts, "learn")
    assert calls == [3]
    assert kept.asked == ["a", "b"]
    for found, expected in zip(tokens, sequences(policy, kept), strict=True):
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        assert found.n_prompt == expected.n_prompt
    assert len(tokens) == 4
    assert "of 3 examples to learn the model cannot take 1" in caplog.text
    assert "context of 24" in caplog.text
    with pytest.raises(ValueError, match=r"cannot take 1 \(.*context of 24"):
        fitting(policy, texts.take(np.array([2])), "learn")
