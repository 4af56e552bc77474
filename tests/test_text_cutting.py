"""Ways to cut texts into tokens: each brings texts back, each text format has those it says."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from random_crystals import prototypes

from crystaljax.text.cutting import Cutting, make_tokenizer, own_vocabulary
from crystaljax.tokenizations.registry import create_format, tokenization_names

CRYSTALS = prototypes(101)
PROMPT = "A crystal of NaCl in space group 136: please.\n"
OWN = ("cif", "site-symmetry", "wyckoff-bins", "p1-bins")


@pytest.mark.parametrize("cutting", ["symbols", "own", "bpe"])
@pytest.mark.parametrize("name", tokenization_names("text"))
def test_every_format_and_cutting(name: str, cutting: Cutting) -> None:
    format = create_format(name)
    texts = format.encode(CRYSTALS)
    if cutting == "own" and name not in OWN:
        with pytest.raises(ValueError, match=r"no vocabulary of its own .*: choose symbols"):
            make_tokenizer(cutting, texts, format)
        return
    tokenizer = make_tokenizer(cutting, [*texts, PROMPT], format)
    for some in (texts, [PROMPT]):
        tokens = tokenizer.encode(some)
        assert tokenizer.decode(tokens) == some
    words = tokenizer.fast.get_vocab()
    if cutting == "own":
        assert set(own_vocabulary(format)) <= set(words)


def test_words_of_bins_are_tokens() -> None:
    format = create_format("wyckoff-bins")
    texts = format.encode(CRYSTALS)
    tokenizer = make_tokenizer("own", [*texts, PROMPT], format)
    assert [len(x) for x in tokenizer.encode(texts)] == [len(x.split()) for x in texts]
    # the prompt's words are others, so it is cut into symbols and characters
    assert tokenizer.fast.convert_ids_to_tokens(tokenizer.encode(["NaCl in"])[0]) == [
        *("Na", "Cl", " ", "i", "n")
    ]


def test_symbols() -> None:
    """Those of the format, a pattern's instead, or elements and characters."""
    cif, plaid = create_format("cif"), create_format("plaid")
    for format, word in ((cif, "_cell_length_a"), (plaid, "Spacegroup: ")):
        texts = format.encode(CRYSTALS)
        assert word in make_tokenizer("symbols", texts, format).fast.get_vocab()
        assert word not in make_tokenizer("symbols", texts).fast.get_vocab()
        characters = make_tokenizer("symbols", texts, format, pattern=r"[\s\S]")
        assert len(characters.encode(texts[:1])[0]) == len(texts[0])
    tokenizer = make_tokenizer("symbols", ["Ti2O 0.5"])
    assert tokenizer.fast.convert_ids_to_tokens(tokenizer.encode(["TiO2"])[0]) == ["Ti", "O", "2"]


def test_vocabularies_that_are_too_small() -> None:
    bins = create_format("wyckoff-bins")
    texts = bins.encode(CRYSTALS)
    with pytest.raises(ValueError, match=r"a vocabulary of 1000 is too small for 1\d{4} tokens:"):
        make_tokenizer("own", texts, bins, n_vocabulary=1000)
    with pytest.raises(ValueError, match=r"a vocabulary of 12 is too small for .*: allow more"):
        make_tokenizer("symbols", texts, bins, n_vocabulary=12)
    with pytest.raises(ValueError, match="at least 259 are needed"):
        make_tokenizer("bpe", texts, bins, n_vocabulary=12)
    wide = create_format("wyckoff-bins:coordinate_width=0.05,length_width=1,angle_width=10")
    texts = wide.encode(CRYSTALS)
    assert make_tokenizer("own", texts, wide, n_vocabulary=1000).n_vocabulary() < 1000


def test_texts_that_are_no_crystals() -> None:
    with pytest.raises(ValueError, match="texts that are no crystals: there is no vocabulary"):
        make_tokenizer("own", ["Al Co"])
    for cutting in ("symbols", "bpe"):
        assert make_tokenizer(cutting, ["Al Co"]).encode(["Co Al"])
        with pytest.raises(ValueError, match="no texts to learn"):
            make_tokenizer(cutting, [])
