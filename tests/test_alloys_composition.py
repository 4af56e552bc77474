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
)
from crystaljax.alloys.dataset import candidates
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
    assert write_formula({"Al": np.pi, "Ni": np.e, "Co": np.sqrt(2)}) == "Al43Ni37Co20"
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
    assert error < (1e-9 if total <= 100 else 0.01)


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


@given(st.text(alphabet="<>/BC2_ VolumeNbMo0123456789.%-", max_size=80))
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
    b2 = x["Al"] * ATOMIC_VOLUME["Al"] + x["Ni"] * ATOMIC_VOLUME["Ni"]
    assert b2 / (b2 + x["Cr"] * ATOMIC_VOLUME["Cr"]) == pytest.approx(0.30)


def test_mixture_by_mole() -> None:
    candidate = Candidate({"Cr": 33, "Fe": 67}, {"Mn": 1, "Al": 2, "Fe": 1}, 40.0)
    x = master(candidate, "mole")
    expected = {"Al": 0.2, "Cr": 0.198, "Fe": 0.1 + 0.402, "Mn": 0.1}
    assert x == pytest.approx(expected)
    assert list(x) == sorted(x)
    with pytest.raises(CompositionError, match="no atomic volume is known of Pu"):
        master(Candidate({"Pu": 1}, {"Al": 1}, 50.0))


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
