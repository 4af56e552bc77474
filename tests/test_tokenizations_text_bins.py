"""Texts of words of a fixed vocabulary: round trips up to the bins, faults as reasons."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from random_crystals import padded_crystals, prototypes, triclinic_crystal

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.structures import to_structures
from crystaljax.tokenizations.text.bins import P1Bins, WyckoffBins
from crystaljax.tokenizations.text.coordinates import CoordinatesText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

WYCKOFF, P1 = WyckoffBins(), P1Bins()
RUTILE = "136: 4.59Å 2.96Å\nTi: 2a\nO: 4f 0.305"
SALT = "P1: 4.00Å 4.00Å 4.00Å 60.0° 60.0° 60.0°\nNa: 0.000 0.000 0.000\nCl: 0.500 0.500 0.500"
STRICT = StructureMatcher(ltol=0.05, stol=0.05, angle_tol=1)


def assert_come_back(crystals: Crystals, read: Crystals) -> None:
    """As the strict matcher sees it."""
    for one, other in zip(to_structures(crystals, True), to_structures(read, True), strict=True):
        assert one is not None
        assert other is not None
        assert STRICT.fit(one, other)


@settings(max_examples=60)
@given(
    padded_crystals(), st.sampled_from([(0.001, 0.01, 0.1), (0.0025, 0.05, 0.5), (0.02, 0.2, 1)])
)
def test_any_crystal_comes_back(crystals: Crystals, widths: tuple[float, float, float]) -> None:
    bins = WyckoffBins(*widths)
    (text,) = bins.encode(crystals)
    assert re.fullmatch(bins.pattern([int(crystals.space_group[0])]), text)
    decoded = bins.decode([text])
    assert decoded.reasons == [None]
    read = decoded.crystals.with_slots(crystals.n_slots)
    for name in ("space_group", "wyckoff", "species"):
        np.testing.assert_array_equal(getattr(read, name), getattr(crystals, name))
    difference = np.asarray(read.frac - crystals.frac, float)  # dependent ones may double it
    assert abs(difference - np.round(difference)).max() <= widths[0] + 1e-6
    change = abs(read.lattice - crystals.lattice)[0]
    assert change[:3].max() <= widths[1] / 2 + 1e-5
    assert change[3:].max() <= widths[2] / 2 + 1e-4
    assert (
        bins.encode(decoded.crystals) == [text] or crystals.n_sites[0] > 1
    )  # their order may differ


@settings(max_examples=30)
@given(triclinic_crystal())
def test_any_cell_comes_back(crystals: Crystals) -> None:
    (text,) = P1.encode(crystals)
    assert re.fullmatch(P1.pattern(), text)
    decoded = P1.decode([text])
    assert decoded.reasons == [None]
    assert_come_back(crystals, decoded.crystals)


def test_what_the_texts_are() -> None:
    crystals = WYCKOFF.decode([RUTILE]).crystals
    assert WyckoffText().encode(crystals) == ["136\n4.590 2.960\nTi 2a\nO 4f 0.3050"]
    assert WYCKOFF.encode(crystals) == [RUTILE]
    assert WYCKOFF.decode([" 136:  4.59Å 2.96Å O: 4f 0.305\n\nTi: 2a "]).ok.all()
    salt = P1.decode([SALT]).crystals
    assert salt.space_group.tolist() == [225]
    assert salt.lattice[0] == pytest.approx([4 * 2**0.5] * 3 + [90] * 3, rel=1e-4)
    assert P1.encode(salt) == [SALT]


@pytest.mark.parametrize(("bins", "least"), [(WYCKOFF, 1), (P1, 0.96)])
def test_prototypes_come_back(bins: WyckoffBins | P1Bins, least: float) -> None:
    crystals = prototypes(23)
    texts = bins.encode(crystals)
    assert all(map(re.compile(bins.pattern()).fullmatch, texts))
    decoded = bins.decode(texts)
    assert decoded.ok.all()
    assert (decoded.crystals.space_group == crystals.space_group).mean() >= least
    assert_come_back(crystals, decoded.crystals)


def test_augmentation() -> None:
    crystals = prototypes(23)
    plain, one = P1.encode(crystals), P1.augment(crystals, np.random.default_rng(0))
    assert np.mean([a != b for a, b in zip(plain, one, strict=True)]) > 0.99
    words = set(P1.vocabulary())
    assert all(set(re.findall(r"\s?\S+", text)) <= words for text in one)
    assert_come_back(crystals, P1.decode(one).crystals)


@pytest.mark.parametrize("bins", [WYCKOFF, P1, WyckoffBins(0.02, 0.5, 7), P1Bins(0.25, 0.5, 7)])
def test_vocabulary(bins: WyckoffBins | P1Bins) -> None:
    """Texts are made of its words, and no word begins another."""
    words = bins.vocabulary()
    assert len(set(words)) == len(words)
    ordered = sorted(words)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
    for text in bins.encode(prototypes(100)):
        assert set(re.findall(r"\s?\S+", text)) <= set(words)


def test_numbers_of_words() -> None:
    """230 groups, 12,000 lengths, 1799 angles, 118 elements, 1000 coordinates; the positions."""
    kinds = [word[-1] for word in WYCKOFF.vocabulary()]
    assert (kinds.count(":"), kinds.count("Å"), kinds.count("°")) == (230 + 118, 12000, 1799)
    kinds = [word[-1] for word in P1.vocabulary()]
    assert (kinds.count(":"), kinds.count("Å"), kinds.count("°")) == (1 + 118, 6000, 601)
    assert len(kinds) == 119 + 6000 + 601 + 1000


@pytest.mark.parametrize("bins", [WYCKOFF, P1])
def test_tokenizer_and_grammar(bins: WyckoffBins | P1Bins) -> None:
    """A word is a token, and the grammar of the pattern lets the texts' tokens through."""
    pytest.importorskip("tokenizers")
    from crystaljax.text.grammar import accepts, from_regex
    from crystaljax.text.tokenizer_training import from_vocabulary

    tokenizer = from_vocabulary(bins.vocabulary())
    crystals = prototypes(23)
    crystals = crystals[np.isin(crystals.space_group, [2, 22, 225, 166])]
    texts = bins.encode(crystals)
    tokens = tokenizer.encode(texts)
    assert tokenizer.decode(tokens) == texts
    assert [len(each) for each in tokens] == [len(text.split()) for text in texts]
    pattern = bins.pattern([2, 22, 225, 166] if bins is WYCKOFF else None)
    grammar = from_regex(pattern, tokenizer, tokenizer.n_vocabulary())
    assert all(accepts(grammar, each) for each in tokens)
    assert not accepts(grammar, tokens[0][:-1][::-1])


@pytest.mark.parametrize(
    ("bins", "text", "reason"),
    [
        (WYCKOFF, "", "words out of order"),
        (WYCKOFF, "231: 4.59Å\nTi: 2a", "'231:' is no word of the vocabulary"),
        (WYCKOFF, "136: 4.59 2.96\nTi: 2a", "'4.59' is no word of the vocabulary"),
        (WYCKOFF, "136: 4.59Å 200.00Å\nTi: 2a", "'200.00Å' is no word of the vocabulary"),
        (WYCKOFF, "136: 4.59Å 0.00Å\nTi: 2a", "'0.00Å' is no word"),
        (WYCKOFF, RUTILE + " 1.000", "'1.000' is no word"),
        (WYCKOFF, RUTILE + "5", "'0.3055' is no word"),
        (WYCKOFF, "136: 4.59Å\nTi: 2a", "space group 136 is 2 lengths and 0 angles, not 1 and 0"),
        (WYCKOFF, "3: 4.00Å 4.00Å 90.0° 90.0°\nTi: 1a 0.000", "is 3 lengths and 1 angles"),
        (WYCKOFF, "136: 4.59Å 2.96Å", "words out of order"),
        (WYCKOFF, "136: 4.59Å 2.96Å 2a Ti:", "words out of order"),
        (WYCKOFF, "136: 4.59Å 2.96Å\nTi: 4a", "'4a' is no Wyckoff position of space group 136"),
        (WYCKOFF, "136: 4.59Å 2.96Å\nO: 4f", "position 4f of space group 136: 1 number expected"),
        (WYCKOFF, "136: 4.59Å 2.96Å\nTi: 2a\nO: 2a", "a position without freedom twice"),
        (P1, "", "words out of order"),
        (P1, SALT[:-6], "words out of order"),
        (P1, SALT.replace("60.0°", "59.9°"), "'59.9°' is no word of the vocabulary"),
        (P1, SALT.replace("Cl: 0.500 0.500 0.500", "Cl: 0.000 0.000 0.002"), "less than 0.0237"),
        (P1, SALT.replace("4.00Å", "0.50Å"), "its volume is below 0.1"),
        (P1, SALT.replace("4.00Å", "0.90Å"), "no plausible unit cell"),
    ],
)
def test_faults(bins: WyckoffBins | P1Bins, text: str, reason: str) -> None:
    good = RUTILE if bins is WYCKOFF else SALT
    decoded = bins.decode([good, text, good])
    assert decoded.ok.tolist() == [True, False, True]
    assert reason in (decoded.reasons[1] or "")
    assert not any(np.asarray(x[1]).any() for x in jax.tree.leaves(decoded.crystals))


def mangled(bins: WyckoffBins | P1Bins, text: str) -> st.SearchStrategy[str]:
    """Words of a text and of the vocabulary, some in another place."""
    words = re.findall(r"\s?\S+", text)
    some = st.sampled_from(words) | st.sampled_from(bins.vocabulary()) | st.text(max_size=3)
    inserted = st.tuples(st.integers(0, len(words)), st.integers(0, 2), some)

    def mangle(changes: list[tuple[int, int, str]]) -> str:
        mixed = list(words)
        for at, dropped, new in changes:
            mixed[at : at + dropped] = [new]
        return "".join(mixed)

    return st.builds(mangle, st.lists(inserted, max_size=4))


@pytest.mark.parametrize(("bins", "text"), [(WYCKOFF, RUTILE), (P1, SALT)])
@settings(max_examples=100)
@given(st.data())
def test_garbage_never_raises(bins: WyckoffBins | P1Bins, text: str, data: st.DataObject) -> None:
    texts = data.draw(st.lists(mangled(bins, text) | st.text(max_size=20), max_size=3))
    decoded = bins.decode(texts)
    assert [reason is None for reason in decoded.reasons] == decoded.ok.tolist()
    assert len(decoded.crystals) == len(texts)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(decoded.crystals))


def test_what_there_is_no_bin_for() -> None:
    """The crystal is named, and what to do."""
    both = Crystals.concatenate([WYCKOFF.decode([RUTILE]).crystals] * 2)
    both.lattice[1, 2] = 130
    with pytest.raises(ValueError, match=r"crystal 1 cannot be written: c is 130\.00Å, and the"):
        WYCKOFF.encode(both)
    with pytest.raises(ValueError, match=r"lengths are 0\.01Å to 60\.00Å: raise max_length"):
        P1.encode(both)
    assert WyckoffBins(max_length=130).decode(WyckoffBins(max_length=130).encode(both)).ok.all()
    both.space_group[0] = 0
    with pytest.raises(ValueError, match="crystal 0"):
        WyckoffBins(max_length=130).encode(both)
    assert WYCKOFF.encode(both[:0]) == P1.encode(both[:0]) == []


def test_a_coordinate_that_rounds_to_one() -> None:
    crystals = WYCKOFF.decode([RUTILE]).crystals
    crystals.frac[0, 1] = 0.9998, 0.9998, 0
    assert WYCKOFF.encode(crystals)[0].endswith("O: 4f 0.000")


def test_patterns() -> None:
    with pytest.raises(ValueError, match="cannot be held to space groups"):
        P1.pattern([225])
    with pytest.raises(ValueError, match="231 is no space group"):
        WYCKOFF.pattern([231])
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        WYCKOFF.pattern([1], ["Xx"])
    assert not re.fullmatch(WYCKOFF.pattern([135]), RUTILE)
    assert re.fullmatch(WYCKOFF.pattern([136], ["Ti", "O"]), RUTILE)
    assert not re.fullmatch(WYCKOFF.pattern([136], ["Ti"]), RUTILE)


@pytest.mark.parametrize("bins", [WyckoffBins, P1Bins])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinate_width": 0}, "coordinate_width must be above 0"),
        ({"coordinate_width": 0.003}, "coordinate_width must divide 1"),
        ({"coordinate_width": 1}, "coordinate_width must divide 1"),
        ({"length_width": 1 / 3}, "length_width has at most 6 decimals"),
        ({"max_length": 0.001}, "max_length must be at least length_width"),
        ({"angle_width": 90}, "angle_width must be at most 60"),
        ({"max_length": float("nan")}, "max_length must be above 0"),
    ],
)
def test_bad_options(
    bins: type[WyckoffBins | P1Bins], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bins(**options)


def test_tolerance() -> None:
    assert P1.tolerance == pytest.approx(0.0237, abs=1e-4)
    assert P1Bins(symprec=0.1).tolerance == 0.1
    assert CoordinatesText().tolerance < P1.tolerance


def test_materials_project(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mp20_bt" / "test.csv.gz"
    crystals = load(source, cache_dir=tmp_path, workers=1).crystals
    some = crystals[np.random.default_rng(0).choice(len(crystals), 300, replace=False)]
    for bins, least in ((WYCKOFF, 1), (P1, 0.99)):
        decoded = bins.decode(bins.encode(some))
        assert decoded.ok.all()
        assert (decoded.crystals.space_group == some.space_group).mean() >= least
        assert_come_back(some, decoded.crystals)
