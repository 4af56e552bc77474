"""Tokenizers learnt from texts: reproducible, and readable by transformers."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")
from small_text import ELEMENTS_AND_DIGITS, TRIPLES

from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import CHARACTERS, from_vocabulary, train_bpe, train_words

TAGS = ("<BCC>", "</BCC>", "<B2>", "</B2>", "<B2_Volume>", "</B2_Volume>")


WORDS = ("Nb", "Mo", "Cr", "Fe", "W", "Ta", "V", "Zr", "Ti", "Ru", "Mn", "Al", "Ni", "2", " ", ".")
WORDS += tuple(str(i) for i in range(100) if i != 2)


def trained(kind: str) -> Tokenizer:
    if kind == "vocabulary":
        return from_vocabulary(WORDS, TAGS)
    if kind == "bpe":
        return train_bpe(TRIPLES, 300, TAGS)
    return train_words(
        TRIPLES, {"words": ELEMENTS_AND_DIGITS, "characters": CHARACTERS}[kind], TAGS
    )


@pytest.mark.parametrize("kind", ["bpe", "words", "characters", "vocabulary"])
def test_the_same_texts_give_the_same_files(tmp_path: Path, kind: str) -> None:
    for name in ("one", "other"):
        trained(kind).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "words", "characters", "vocabulary"])
def test_transformers_reads_it(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = trained(kind)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer.sequences([""] * len(TRIPLES), TRIPLES)
    for text, tokens in zip(TRIPLES, ours, strict=True):
        assert theirs(text).input_ids == tokens.tokens[:-1].tolist()
        assert theirs.decode(tokens.tokens, skip_special_tokens=True) == text
    assert theirs.eos_token_id == tokenizer.end_id


def test_vocabulary() -> None:
    assert 3 + 256 + len(TAGS) < trained("bpe").n_vocabulary() <= 300
    four = {"<|start|>", "<|end|>", "<|pad|>", "<|unknown|>"}
    assert set(train_words(["ab", "b a"], CHARACTERS).fast.get_vocab()) == {*"ab ", *four}
    assert set(train_words(["NiAl3"], r"[A-Z][a-z]?").fast.get_vocab()) == {"Ni", "Al", "3", *four}


def test_a_given_vocabulary() -> None:
    tokenizer = from_vocabulary(["a", "ab", " c\n", "Å"])
    assert tokenizer.n_vocabulary() == 4 + 4
    (tokens,) = tokenizer.encode(["abaÅ c\na"])
    assert tokens.tolist() == [5, 4, 7, 6, 4]
    assert tokenizer.decode([tokens]) == ["abaÅ c\na"]
    assert tokenizer.token_bytes()[6:8] == [b" c\n", "Å".encode()]
    with pytest.raises(ValueError, match="text 1 has what the tokenizer has no token for"):
        tokenizer.encode(["ab", "b"])
    for bad in (["a", "a"], ["a", ""]):
        with pytest.raises(ValueError, match="different and not empty"):
            from_vocabulary(bad)
    with pytest.raises(ValueError, match="no word at all"):
        from_vocabulary([])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no texts"):
        train_bpe([], 300)
    with pytest.raises(ValueError, match="at least 260 are needed"):
        train_bpe(TRIPLES, 259, ["<BCC>"])
