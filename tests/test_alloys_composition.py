"""Formulas, candidates and mixtures of alloys."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.alloys.composition import (
    PAPER_ELEMENTS,
    Candidate,
    CompositionError,
    candidate_pattern,
    fractions,
    master,
    read_candidate,
    read_formula,
    write_formula,
    write_percentages,
    write_volume,
)
from crystaljax.alloys.dataset import alloy_fields, candidates
from crystaljax.alloys.lattice import ROOM, lattice_parameter
from crystaljax.alloys.lists import load_lists
from crystaljax.alloys.volumes import ATOMIC_VOLUME

TEXT = "<BCC>Nb67Mo33</BCC> <B2>ZrTiRu2</B2> <B2_Volume>50.6</B2_Volume>"


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("Cr33Fe67", {"Cr": 33, "Fe": 67}),
        ("MnAl2Fe", {"Mn": 1, "Al": 2, "Fe": 1}),
        ("TiV", {"Ti": 1, "V": 1}),
        ("V12.5Nb87.5", {"V": 12.5, "Nb": 87.5}),
    ],
)
def test_formulas_of_the_paper(text: str, amounts: dict[str, float]) -> None:
    assert read_formula(text) == amounts
    assert list(read_formula(text)) == list(amounts)


@pytest.mark.parametrize("text", ["Cr33Fe67", "MnAl2Fe", "TiV", "Nb67Mo33", "W", "AlFe3"])
def test_formulas_are_written_as_they_are_read(text: str) -> None:
    assert write_formula(read_formula(text)) == text


def test_formulas_of_fractions() -> None:
    assert write_formula({"Nb": 0.67, "Mo": 0.33}) == "Nb67Mo33"
    assert write_formula({"Al": 0.5, "Ni": 0.25, "Co": 0.25}) == "Al2NiCo"
    assert write_formula({"Al": 33.3, "Ni": 66.7}) == "Al33.3Ni66.7"
    assert write_formula({"Al": 1e-7, "Ni": 1.0}) == "Al0.00001Ni100"
    with pytest.raises(CompositionError, match="above zero"):
        write_formula({"Al": 1, "Ni": 0})


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({"Cr": 7, "Fe": 13}, "Cr35Fe65"),
        ({"Cr": 0.05, "Fe": 0.95}, "Cr5Fe95"),
        ({"Ti": 50, "V": 50}, "TiV"),
        ({"Cr": 3}, "Cr"),
        ({"Cr": 1, "Fe": 2}, "CrFe2"),
        ({"V": 33, "Nb": 33, "Mo": 34}, "V33Nb33Mo34"),
    ],
)
def test_formulas_in_per_cent(amounts: dict[str, float], text: str) -> None:
    assert write_percentages(amounts) == text
    assert fractions(read_formula(text)) == pytest.approx(fractions(amounts))


amounts_of_elements = st.dictionaries(
    st.sampled_from(PAPER_ELEMENTS), st.integers(1, 100), min_size=1, max_size=5
)


@given(amounts_of_elements)
def test_written_formulas_read_back_within_rounding(amounts: dict[str, int]) -> None:
    total = sum(amounts.values())
    back = read_formula(write_formula({e: n / total for e, n in amounts.items()}))
    size = sum(back.values())
    error = max(abs(back.get(e, 0) / size - n / total) for e, n in amounts.items())
    assert error < (1e-9 if total <= 100 else 2e-6)


any_amounts = st.dictionaries(
    st.sampled_from(PAPER_ELEMENTS), st.floats(1e-9, 1e9), min_size=1, max_size=6
)


@given(any_amounts, any_amounts, st.floats(0, 100, exclude_min=True, exclude_max=True))
def test_what_is_written_reads_back(
    bcc: dict[str, float], b2: dict[str, float], volume: float
) -> None:
    """A candidate as a text, and as a training example."""
    written = Candidate(bcc, b2, volume)
    fields = alloy_fields(written)
    tags = zip(("BCC", "B2", "B2_Volume"), ("bcc", "b2", "volume"), strict=True)
    example = " ".join(f"<{tag}>{fields[name]}</{tag}>" for tag, name in tags)
    for text in (str(written), example):
        back, reason = read_candidate(text, PAPER_ELEMENTS)
        assert back is not None, reason
        assert back.b2_volume == volume
        for read, amounts in [(back.bcc, bcc), (back.b2, b2)]:
            assert fractions(read) == pytest.approx(fractions(amounts), rel=2e-5, abs=2e-6)


def test_a_small_volume_is_written_in_full() -> None:
    candidate = Candidate({"Cr": 1}, {"Ni": 1, "Al": 1}, 0.00004)
    assert "<B2_Volume>0.00004</B2_Volume>" in str(candidate)
    assert alloy_fields(candidate)["volume"] == "0.00004"
    assert write_volume(45.0) == "45"
    assert write_volume(45.0, decimals=1) == "45.0"


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("Al₂Ni", {"Al": 2, "Ni": 1}),
        ("Cr₃₃Fe₆₇", {"Cr": 33, "Fe": 67}),
        ("AlNi₀.₅", {"Al": 1, "Ni": 0.5}),
        ("Cr 33 Fe 67", {"Cr": 33, "Fe": 67}),
        ("Cr33 Fe67", {"Cr": 33, "Fe": 67}),
        ("Cr\u00a033\u2009Fe\u202f67", {"Cr": 33, "Fe": 67}),
        ("\n Ti V\n", {"Ti": 1, "V": 1}),
        ("Al_2Ni", {"Al": 2, "Ni": 1}),
        ("Al_{2}Ni_{1}", {"Al": 2, "Ni": 1}),
        ("V12,5Nb87,5", {"V": 12.5, "Nb": 87.5}),
        ("Cr33, Fe67", {"Cr": 33, "Fe": 67}),
        ("Al0,333Ni0,667", {"Al": 0.333, "Ni": 0.667}),
    ],
)
def test_formulas_that_models_write(text: str, amounts: dict[str, float]) -> None:
    assert read_formula(text) == amounts


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("50,6", 50.6),
        ("50.6 %", 50.6),
        ("50,6%", 50.6),
        ("50.6 vol.%", 50.6),
        ("50.6 vol%", 50.6),
        (".5", 0.5),
        ("+50.", 50.0),
    ],
)
def test_volumes_that_models_write(text: str, volume: float) -> None:
    candidate, reason = read_candidate(TEXT.replace("50.6", text))
    assert candidate is not None, reason
    assert candidate.b2_volume == volume


@pytest.mark.parametrize("digits", ["٥٠", "５０", "५०", "𝟓𝟎", "²⁵", "½", "Ⅷ"])
def test_digits_of_other_scripts_are_not_read(digits: str) -> None:
    """Python's float() and regular expressions take many of them."""
    with pytest.raises(CompositionError, match="no element or amount"):
        read_formula(f"Al{digits}Ni")
    candidate, reason = read_candidate(TEXT.replace("50.6", digits))
    assert candidate is None
    assert reason == "the B2 volume is no number"


@pytest.mark.parametrize("text", ["1,234", "33,333Fe66", "12,500"])
def test_thousands_or_decimals_are_not_guessed(text: str) -> None:
    with pytest.raises(CompositionError, match="decimal number or thousands"):
        read_formula(f"Al{text}")


def test_candidates_that_cannot_be() -> None:
    for volume in (0.0, 100.0, -3.0, np.nan, np.inf):
        with pytest.raises(CompositionError, match="not between 0 and 100"):
            Candidate({"Cr": 1}, {"Al": 1}, volume)
    for amounts in ({}, {"Al": 0.0}, {"Al": -1.0, "Cr": 2.0}, {"Al": np.nan}, {"Al": np.inf}):
        with pytest.raises(CompositionError, match="above zero"):
            fractions(amounts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no tags", "no <BCC>"),
        (TEXT + " <B2>FeAl</B2>", "several <B2>"),
        (TEXT.replace("Nb67", "Xx67"), "BCC has the unknown element Xx"),
        (TEXT.replace("Ru2", "Pu2"), "B2 has the element Pu, which is not in the set"),
        (TEXT.replace("Nb67", "Nb0"), "the amount 0 of Nb"),
        (TEXT.replace("Nb67", "Nb-67"), "'-' in 'Nb-67Mo33'"),
        (TEXT.replace("Nb67", "Nb" + "9" * 150), None),
        (TEXT.replace("Nb67", "Nb" + "9" * 400), "a formula of"),
        (TEXT.replace("Nb67Mo33", " "), "BCC has no element"),
        (TEXT.replace("50.6", "0"), "not between 0 and 100"),
        (TEXT.replace("50.6", "-3"), "-3 %, which is not between"),
        (TEXT.replace("50.6", "100.5"), "100.5 %"),
        (TEXT.replace("50.6", "nan"), "no number"),
        (TEXT.replace("50.6", "half"), "no number"),
    ],
)
def test_bad_candidates_have_reasons(text: str, reason: str | None) -> None:
    candidate, found = read_candidate(text, PAPER_ELEMENTS)
    if reason is None:
        assert candidate is not None
    else:
        assert candidate is None
        assert found is not None
        assert reason in found


@given(st.text(alphabet="<>/BC2_ VolumeNbMo0123456789.,%-{}₂²٥", max_size=80))
def test_no_text_raises(text: str) -> None:
    for full in (text, f"<BCC>{text}</BCC> <B2>{text}</B2> <B2_Volume>{text}</B2_Volume>"):
        candidate, reason = read_candidate(full, PAPER_ELEMENTS)
        assert (candidate is None) == bool(reason)


def test_candidates_are_written_with_an_underscore() -> None:
    for text in (TEXT, TEXT.replace("B2_Volume", "B2 Volume"), f"Sure:\n{TEXT}\nDone."):
        candidate, reason = read_candidate(text)
        assert reason is None
        assert str(candidate) == TEXT


def test_mixture_by_volume_keeps_the_volumes() -> None:
    candidate = Candidate({"Cr": 1}, {"Ni": 1, "Al": 1}, 30.0)
    x = master(candidate)
    assert sum(x.values()) == pytest.approx(1)
    assert x["Al"] == pytest.approx(x["Ni"])
    b2 = (x["Al"] + x["Ni"]) * 2.887**3 / 2  # the lattice parameter of NiAl in Å
    assert b2 / (b2 + x["Cr"] * ATOMIC_VOLUME["Cr"]) == pytest.approx(0.30)


@pytest.mark.parametrize(
    ("bcc", "b2", "first", "second"),
    [
        ({"Cr": 1}, {"Ni": 1, "Al": 1}, {"Al": 1}, {"Ni": 1}),
        ({"Cr": 33, "Fe": 67}, {"Mn": 1, "Al": 2, "Fe": 1}, {"Al": 1}, {"Mn": 0.5, "Fe": 0.5}),
        ({"Nb": 67, "Mo": 33}, {"Zr": 1, "Ti": 1, "Ru": 2}, {"Ru": 1}, {"Ti": 0.5, "Zr": 0.5}),
        ({"Cr": 3, "Al": 1}, {"Ni": 2, "Al": 3}, {"Al": 1}, {"Al": 0.2, "Ni": 0.8}),
    ],
)
def test_volumes_are_those_of_the_lattices_that_are_compared(
    bcc: dict[str, float], b2: dict[str, float], first: dict[str, float], second: dict[str, float]
) -> None:
    """40 vol-% of B2 is 40 % of the volume by the lattice parameters of the mismatch."""
    x = master(Candidate(bcc, b2, 40.0))
    elements = sorted(x)
    sites = [np.array([part.get(e, 0.0) for e in elements]) for part in (bcc, first, second)]
    a = [lattice_parameter(elements, *pair, ROOM) for pair in ((sites[0], sites[0]), sites[1:])]
    # Moles of each part from the mass balance, by least squares.
    parts = np.array([sites[0] / sites[0].sum(), (sites[1] + sites[2]) / 2]).T
    moles, error, *_ = np.linalg.lstsq(parts, np.array([x[e] for e in elements]), rcond=None)
    assert np.abs(parts @ moles - [x[e] for e in elements]).max() < 1e-12, error
    volumes = moles * np.array(a) ** 3
    assert volumes[1] / volumes.sum() == pytest.approx(0.40)


def test_mixture_by_mole() -> None:
    candidate = Candidate({"Cr": 33, "Fe": 67}, {"Mn": 1, "Al": 2, "Fe": 1}, 40.0)
    x = master(candidate, "mole")
    expected = {"Al": 0.2, "Cr": 0.198, "Fe": 0.1 + 0.402, "Mn": 0.1}
    assert x == pytest.approx(expected)
    assert list(x) == sorted(x)
    with pytest.raises(CompositionError, match="no atomic volume is known of Pu"):
        master(Candidate({"Pu": 1}, {"Al": 1}, 50.0))
    many = dict.fromkeys(PAPER_ELEMENTS[:9], 1.0)
    with pytest.raises(CompositionError, match="a B2 of 9 elements, more than 8"):
        master(Candidate({"Cr": 1}, many, 50.0))
    assert sum(master(Candidate(many, {"Al": 1, "Ni": 1}, 50.0)).values()) == pytest.approx(1)


@given(st.from_regex(candidate_pattern(("Al", "Co", "Cr", "Ni")), fullmatch=True))
def test_what_matches_the_pattern_is_a_candidate(text: str) -> None:
    candidate, reason = read_candidate(text, {"Al", "Co", "Cr", "Ni"})
    assert candidate is not None, reason
    assert set(candidate.bcc) | set(candidate.b2) <= {"Al", "Co", "Cr", "Ni"}


def test_the_pattern_has_the_training_data() -> None:
    lists = load_lists("alcocrni")
    pattern = re.compile(candidate_pattern(lists.elements))
    for part in candidates(lists.bcc, lists.b2):
        assert part
        assert all(pattern.fullmatch(str(one)) for one in part)
        assert not any(pattern.fullmatch(str(one).replace("Cr", "Fe", 1)) for one in part)
