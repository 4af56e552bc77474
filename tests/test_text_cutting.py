"""Ways to cut texts into tokens: each brings texts back, each text format has those it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from random_crystals import prototypes

from crystaljax.text.cutting import Cutting, make_tokenizer, own_vocabulary
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.registry import create_format, format_options, tokenization_names

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


USER_FORMAT = '''
"""Sites before the space group and the lattice, on one line."""
from dataclasses import dataclass

from crystaljax.tokenizations.text.wyckoff import WyckoffText


@dataclass(frozen=True)
class Backwards:
    decimals: int = 4
    symbols = r"; |[A-Z][a-z]?|[0-9]{2}|[\\s\\S]"

    def encode(self, crystals):
        texts = WyckoffText(self.decimals).encode(crystals)
        return ["; ".join(text.split("\\n")[::-1]) for text in texts]

    def decode(self, tokens):
        lines = ["\\n".join(text.split("; ")[::-1]) for text in tokens]
        return WyckoffText(self.decimals).decode(lines)

    def pattern(self, space_groups=None, elements=None):
        groups = range(1, 231) if space_groups is None else space_groups
        site = r"[A-Z][a-z]? [0-9]{1,3}[a-zA](?: 0\\.[0-9]{%d})*; " % self.decimals
        return rf"(?:{site})+[0-9. ]+; (?:{'|'.join(map(str, groups))})"

    def vocabulary(self):
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        return ["; ", " 0.", " ", ".", *"0123456789", *letters]
'''


@pytest.mark.parametrize("cutting", ["symbols", "own", "bpe"])
def test_a_format_of_one_s_own(tmp_path: Path, cutting: Cutting) -> None:
    """A file of less than 40 lines, with options, tokens and a grammar of its own."""
    assert len(USER_FORMAT.splitlines()) < 40
    (tmp_path / "mine.py").write_text(USER_FORMAT)
    format = create_format(f"{tmp_path}/mine.py:Backwards:decimals=3")
    assert format_options(format) == {"decimals": 3}
    texts = format.encode(CRYSTALS)
    assert format.decode(texts).ok.all()
    tokenizer = make_tokenizer(cutting, [*texts, PROMPT], format)
    tokens = tokenizer.encode(texts)
    assert tokenizer.decode(tokens) == texts
    assert ("; " in tokenizer.fast.get_vocab()) == (cutting != "bpe")
    pytest.importorskip("outlines_core")
    from crystaljax.text.grammar import accepts, from_regex

    grammar = from_regex(format.pattern(), tokenizer, tokenizer.n_vocabulary())
    assert all(accepts(grammar, each) for each in tokens)
    assert not accepts(grammar, tokens[0][1:])
    other = augmented(format, CRYSTALS, np.random.default_rng(0))
    assert other != texts
    assert format.decode(other).ok.all()
