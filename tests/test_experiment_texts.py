"""Texts that experiments learn from: formats with options, augmentation, tokens of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from crystaljax.composition import formulas
from crystaljax.experiment.texts import Texts, TextsConfig, plain, read_texts
from crystaljax.models.llm.config import LlmConfig
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.text.loading import TextModelConfig, load_text_policy
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
