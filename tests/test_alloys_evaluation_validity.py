"""Chemical plausibility of candidates."""

import pytest

from crystaljax.alloys.composition import read_candidate
from crystaljax.alloys.evaluation.validity import mixture_validity_rates, validity_rates


def candidate(bcc: str, b2: str):  # type: ignore[no-untyped-def]
    found, _ = read_candidate(f"<BCC>{bcc}</BCC> <B2>{b2}</B2> <B2_Volume>40</B2_Volume>")
    assert found is not None
    return found


def test_both_phases_must_pass() -> None:
    pytest.importorskip("smact")
    candidates = [
        candidate("Cr", "AlNi"),  # metals, and Al3+ with a negative Ni of the 2014 list
        candidate("Cr33Fe67", "AlNi"),  # no oxidation states balance 33:67
        candidate("Cr", "AlF7"),  # no alloy, and no balance
        candidate("AlF7", "AlNi"),
        None,
    ]
    rates = validity_rates(candidates)
    assert list(rates) == ["SMACT valid", "Pauling valid"]
    rate, mask = rates["SMACT valid"]
    assert mask.tolist() == [True, True, False, False, False]
    assert (rate.count, rate.total) == (2, 5)
    assert rates["Pauling valid"][1].tolist() == [True, False, False, False, False]
    assert "smact14" in rate.reference
    assert "alloys of metals pass" in rate.description


def test_the_table_matters() -> None:
    pytest.importorskip("smact")
    newer = validity_rates([candidate("Cr", "AlNi")], "icsd24")
    assert newer["Pauling valid"][0].count == 0  # no negative nickel there
    assert newer["SMACT valid"][0].count == 1


def test_nothing_is_nothing() -> None:
    assert validity_rates([])["SMACT valid"][0].total == 0


def test_whole_compositions() -> None:
    rates = mixture_validity_rates([{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "F": 7.0}, None])
    assert rates["Pauling valid"][1].tolist() == [True, False, False]
    assert rates["SMACT valid"][1].tolist() == [True, False, False]
    assert not rates["SMACT valid"][0].description.startswith("in both")


def test_electronegativities_alone_are_no_test() -> None:
    """Why charges have to balance, too: see `validity_rates`."""
    from smact.screening import pauling_test

    assert pauling_test([3, 2, 4], [1.61, 1.91, 2.28])
