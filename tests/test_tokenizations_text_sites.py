"""Properties of every format of symmetry-distinct sites."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_crystals import random_crystals

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.structures import to_structures
from crystaljax.symmetry.orbits import project
from crystaljax.tokenizations.text import sites
from crystaljax.tokenizations.text.cif import CifText
from crystaljax.tokenizations.text.plaid import PlaidText
from crystaljax.tokenizations.text.site_symmetry import SiteSymmetryText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

FORMATS = {
    "wyckoff-text": WyckoffText(),
    "plaid": PlaidText(),
    "plaid, consistent": PlaidText(consistent=True),
    "cif": CifText(),
    "cif, consistent": CifText(consistent=True),
    "site-symmetry": SiteSymmetryText(),
}
each = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
Format = WyckoffText | PlaidText | CifText | SiteSymmetryText

RUTILE = WyckoffText().decode(["136\n4.594 2.959\nTi 2a\nO 4f 0.3048"]).crystals


def assert_same(one: Crystals, other: Crystals, format: Format) -> None:
    """Equal up to rounding; dependent coordinates may double it."""
    for name in ("space_group", "wyckoff", "species"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    difference = np.asarray(one.frac - other.frac, float)
    moved = np.abs(difference - np.round(difference)).max()
    assert moved <= 10.0**-format.coordinate_decimals + 1e-6
    unit = np.repeat([10.0**-format.length_decimals, 10.0**-format.angle_decimals], 3)
    assert (np.abs(one.lattice - other.lattice) <= unit / 2 + 1e-4).all()


@each
@settings(max_examples=60)
@given(random_crystals())
def test_any_crystal_comes_back(format: Format, crystals: Crystals) -> None:
    (text,) = format.encode(crystals)
    decoded = format.decode([text])
    assert decoded.reasons == [None]
    assert_same(decoded.crystals.with_slots(crystals.n_slots), crystals, format)
    present = {SYMBOLS[z - 1] for z in crystals.species[0]}
    assert re.fullmatch(format.pattern([int(crystals.space_group[0])], present), text)


@each
def test_every_prototype_comes_back(format: Format) -> None:
    """The same space group and sites; of each original prototype the matcher says the same."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    dataset = load("prototypes")
    texts = format.encode(dataset.crystals)
    decoded = format.decode(texts)
    assert decoded.reasons == [None] * len(texts)
    np.testing.assert_array_equal(decoded.crystals.space_group, dataset.crystals.space_group)
    pattern = re.compile(format.pattern())
    assert all(pattern.fullmatch(text) for text in texts)
    if getattr(format, "consistent", False):
        return  # the texts are those of the same format, which is matched
    some = np.flatnonzero([i.split("-")[2] == "0" for i in dataset.ids])
    read = to_structures(decoded.crystals[some], primitive=True)
    written = to_structures(dataset.crystals[some], primitive=True)
    matcher = StructureMatcher()
    for one, other in zip(written, read, strict=True):
        assert one is not None and other is not None
        assert matcher.fit(one, other)


@each
@settings(max_examples=60)
@given(data=st.data())
def test_mangled_texts_never_raise(format: Format, data: st.DataObject) -> None:
    """Pieces of texts cut out, doubled, exchanged, and any characters between them."""
    texts = format.encode(RUTILE) + format.encode(load("prototypes").crystals[:3])
    mangled = []
    for _ in range(data.draw(st.integers(1, 4))):
        text = data.draw(st.sampled_from(texts))
        a = data.draw(st.integers(0, len(text)))
        b = data.draw(st.integers(a, len(text)))
        alphabet = st.text("0123456789.- \n'_aAzTiO", max_size=4)
        middle = data.draw(st.text(max_size=3) | alphabet | st.just(text[a:b] * 2))
        mangled.append(text[:a] + middle + text[b:])
    decoded = format.decode(mangled)
    assert [reason is None for reason in decoded.reasons] == decoded.ok.tolist()
    assert len(decoded.crystals) == len(mangled)
    for leaf in jax.tree.leaves(decoded.crystals):
        assert np.isfinite(leaf).all()
        assert not np.asarray(leaf)[~decoded.ok].any()


@each
def test_one_text_is_read_as_in_a_batch(format: Format) -> None:
    texts = format.encode(load("prototypes").crystals[::97])
    texts[3:3] = ["", "nonsense"]
    together = format.decode(texts)
    assert together.ok.sum() == len(texts) - 2
    for i, text in enumerate(texts):
        alone = format.decode([text])
        assert alone.reasons == [together.reasons[i]]
        for one, other in zip(
            jax.tree.leaves(alone.crystals.with_slots(together.crystals.n_slots)),
            jax.tree.leaves(together.crystals[i]),
            strict=True,
        ):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@each
def test_nothing_is_compiled_for_another_number_of_texts(format: Format) -> None:
    texts = format.encode(load("prototypes").crystals[:60:2])
    format.decode(texts)
    before = project._cache_size()
    format.decode(texts[:-3])
    format.decode(texts[5:])
    assert project._cache_size() == before


@each
def test_no_texts(format: Format) -> None:
    decoded = format.decode([])
    assert len(decoded.crystals) == len(decoded.ok) == len(decoded.reasons) == 0


@each
def test_what_cannot_be_written(format: Format) -> None:
    nothing = jax.tree.map(np.zeros_like, RUTILE)
    for group, letter, species, reason in (
        (231, 1, 22, "it has no space group or no site"),
        (136, 0, 22, "it has no space group or no site"),
        (136, 27, 22, "no Wyckoff position of its space group, or no element"),
        (136, 1, 0, "no Wyckoff position of its space group, or no element"),
        (136, 1, 119, "no Wyckoff position of its space group, or no element"),
    ):
        nothing.space_group[0] = group
        nothing.wyckoff[0, 0], nothing.species[0, 0] = letter, species
        batch = Crystals.concatenate([RUTILE, nothing])
        with pytest.raises(ValueError, match=f"crystal 1 cannot be written: .*{reason}"):
            format.encode(batch)


@each
def test_a_text_without_end_costs_itself_alone(format: Format) -> None:
    (text,) = format.encode(RUTILE)
    lines = text.split("\n")
    endless = "\n".join([*lines, *[lines[-1]] * 5000])
    decoded = format.decode([text, endless])
    assert decoded.ok.tolist() == [True, False]
    assert decoded.reasons[1] == "more than 2000 lines"
    assert decoded.crystals.n_slots <= 4


@each
def test_decimals(format: Format) -> None:
    """Any that can be read again."""
    for n in (0, 1, 6, 9):
        other = type(format)(coordinate_decimals=n, length_decimals=n, angle_decimals=n)
        (text,) = other.encode(RUTILE)
        assert other.decode([text]).ok.all()
        assert re.fullmatch(other.pattern([136], ["Ti", "O"]), text)
    for wrong in (-1, 10):
        with pytest.raises(ValueError, match=f"{wrong} decimals: choose 0 to 9"):
            type(format)(length_decimals=wrong)


@each
def test_patterns(format: Format) -> None:
    """Those asked for and no others."""
    (text,) = format.encode(RUTILE)
    assert not re.fullmatch(format.pattern([135], ["Ti", "O"]), text)
    assert not re.fullmatch(format.pattern([136], ["Ti", "S"]), text)
    assert not re.fullmatch(format.pattern([136], ["Ti", "O"]), text + "\n")
    assert len(format.pattern()) < 250_000
    for groups, elements, message in (
        ([], None, "needs a space group and an element"),
        (None, [], "needs a space group and an element"),
        ([0], None, "0 is no space group"),
        (None, ["Xx"], "unknown element 'Xx'"),
    ):
        with pytest.raises(ValueError, match=message):
            format.pattern(groups, elements)


@pytest.mark.parametrize("formula", ["", "ti2", "Ti2 O4", "Ti02", "Ti2(OH)", "2Ti", "Ti2O4."])
def test_what_is_no_formula(formula: str) -> None:
    with pytest.raises(ValueError, match="is no formula"):
        sites.amounts(formula)


def test_amounts() -> None:
    assert sites.amounts("Ti2O4O") == {22: 2, 8: 5}


@each
def test_patterns_are_grammars(format: Format) -> None:
    """Texts of the groups asked for are accepted, cut by a tokenizer; others are not."""
    pytest.importorskip("transformers")
    from crystaljax.text.grammar import accepts, from_regex
    from crystaljax.text.tokenizer_training import train_bpe

    crystals = load("prototypes").crystals
    groups = [2, 136, 167, 225]
    asked = np.isin(crystals.space_group, groups)
    texts = format.encode(crystals[asked][::40]) + format.encode(crystals[~asked][::200])
    tokenizer = train_bpe(texts, 320)
    grammar = from_regex(format.pattern(groups), tokenizer, 320)
    accepted = [accepts(grammar, tokens) for tokens in tokenizer.encode(texts)]
    n_asked = len(crystals[asked][::40])
    assert accepted == [i < n_asked for i in range(len(texts))]
