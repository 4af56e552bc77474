"""Grids of phases, their pairs, and the examples made of them."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.alloys.composition import (
    PAPER_ELEMENTS,
    Candidate,
    fractions,
    read_candidate,
    write_formula,
    write_percentages,
)
from crystaljax.alloys.dataset import (
    ROLES,
    GridConfig,
    PairsConfig,
    Roles,
    alloy_examples,
    b2_candidates,
    bcc_candidates,
    candidates,
)
from crystaljax.alloys.table import composition_key
from crystaljax.text.examples import Chat, Example
from crystaljax.text.prompts import load_template

SMALL = Roles(("Cr", "Fe"), ("Al",), ("Co", "Ni", "Al"))


def test_grid_of_bcc() -> None:
    quarters = GridConfig(SMALL, parts=(4,))
    found = [write_percentages(one) for one in bcc_candidates(quarters)]
    assert found == ["Cr", "Fe", "Cr25Fe75", "CrFe", "Cr75Fe25"]


def test_the_papers_grid_has_its_examples() -> None:
    grid = GridConfig(ROLES["paper"], parts=(2, 3), site_parts=(2,))
    bcc = {frozenset(one.items()) for one in bcc_candidates(grid)}
    for example in ({"Cr": 33, "Fe": 67}, {"Nb": 67, "Mo": 33}, {"Ti": 50, "V": 50}):
        assert frozenset(example.items()) in bcc
    assert frozenset({"V": 33, "Nb": 33, "Mo": 34}.items()) in bcc
    n = len(ROLES["paper"].bcc)
    assert len(bcc) == n + 3 * n * (n - 1) // 2 + n * (n - 1) * (n - 2) // 6
    b2 = {frozenset(fractions(one).items()) for one in b2_candidates(grid)}
    for example in ({"Mn": 0.25, "Al": 0.5, "Fe": 0.25}, {"Zr": 0.25, "Ti": 0.25, "Ru": 0.5}):
        assert frozenset(example.items()) in b2


def test_roles_of_the_paper_have_its_elements() -> None:
    roles = ROLES["paper"]
    assert {*roles.bcc, *roles.first_site, *roles.second_site} == set(PAPER_ELEMENTS)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(1, 3))
def test_grids_are_complete_and_whole(parts: list[int], most: int) -> None:
    roles = Roles(("Cr", "Fe", "V"), (), ())
    found = bcc_candidates(GridConfig(roles, most_bcc=most, parts=tuple(parts)))
    assert all(sum(one.values()) == 100 for one in found)
    assert all(value == int(value) > 0 for one in found for value in one.values())
    keys = [composition_key(one) for one in found]
    assert len(set(keys)) == len(keys)
    # By brute force over all shares, of which each is on the grid within a per cent.
    expected = set()
    for n in parts:
        for shares in product(range(n + 1), repeat=3):
            if sum(shares) == n and sum(k > 0 for k in shares) <= most:
                expected.add(tuple(Fraction(k, n) for k in shares))
    rows = np.array([[one.get(e, 0) for e in roles.bcc] for one in found]) / 100
    for shares in expected:
        assert np.abs(rows - np.array(shares, float)).max(axis=1).min() < 0.01
    assert len(found) <= len(expected)


def test_sites_of_b2() -> None:
    halves = GridConfig(SMALL, site_parts=(2,))
    found = [write_formula(one) for one in b2_candidates(halves)]
    assert found == ["AlCo", "AlNi", "Al2CoNi"]
    quarters = GridConfig(SMALL, site_parts=(4,))
    found = [write_formula(one) for one in b2_candidates(quarters)]
    assert found == ["AlCo", "AlNi", "Al4CoNi3", "Al2CoNi", "Al4Co3Ni"]
    both = GridConfig(Roles((), ("Al", "Ni"), ("Al", "Ni")), most_site=1)
    assert [write_formula(one) for one in b2_candidates(both)] == ["AlNi"]


def test_compositions_that_sites_share_are_tried_once() -> None:
    """AlCoCrNi may be (Al, Co)(Cr, Ni) or another two: an engine is asked once."""
    grid = GridConfig(ROLES["alcocrni"], site_parts=(2,))
    found = [write_formula(one) for one in b2_candidates(grid)]
    assert len(found) == len(set(found)) == 6 + 12 + 1


def test_grids_that_are_none() -> None:
    with pytest.raises(ValueError, match="site_parts must be numbers from 1 to 100"):
        GridConfig(SMALL, site_parts=(0,))
    with pytest.raises(ValueError, match="parts must be numbers from 1 to 100"):
        GridConfig(SMALL, parts=())


@pytest.mark.parametrize("volumes", ["normal", "uniform"])
def test_pairs_are_split_whole(volumes: str) -> None:
    phases = [{"Cr": 10.0 * n, "Fe": 100 - 10.0 * n} for n in range(1, 10)]
    compounds = [{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "Co": 1.0}]
    config = PairsConfig(volumes, validation=0.25)  # type: ignore[arg-type]
    training, validation = candidates(phases, compounds, config)
    assert (len(training), len(validation)) == (14 * 3, 4 * 3)
    keys = [{str(one).split("<B2_V")[0] for one in side} for side in (training, validation)]
    assert not keys[0] & keys[1]
    amounts = np.array([one.b2_volume for one in training + validation])
    assert amounts.min() >= 20
    assert amounts.max() <= 70
    assert amounts.std() == pytest.approx(10 if volumes == "normal" else 14.4, abs=3)
    again = candidates(phases, compounds, config)
    assert [str(one) for one in again[0]] == [str(one) for one in training]


def test_examples_are_candidates_as_the_paper_writes_them() -> None:
    alloys = [
        Candidate({"Nb": 67, "Mo": 33}, {"Zr": 1, "Ti": 1, "Ru": 2}, 50.6),
        Candidate({"Cr": 7, "Fe": 13}, {"Ni": 0.5, "Al": 0.5}, 40.0),
    ]
    template = load_template("alloy_triple")
    examples = alloy_examples(alloys, template, ("Al", "Nb"))
    texts = [one.completion for one in examples if isinstance(one, Example)]
    assert texts == [
        "<BCC>Nb67Mo33</BCC> <B2>ZrTiRu2</B2> <B2_Volume>50.6</B2_Volume>",
        "<BCC>Cr35Fe65</BCC> <B2>NiAl</B2> <B2_Volume>40.0</B2_Volume>",
    ]
    for text, alloy in zip(texts, alloys, strict=True):
        back, _ = read_candidate(text)
        assert back is not None
        assert fractions(back.bcc) == pytest.approx(fractions(alloy.bcc))
    assert "Al, Nb" in examples[0].prompt  # type: ignore[union-attr]
    (chat,) = alloy_examples(alloys[:1], template, ("Al", "Nb"), chat=True)
    assert isinstance(chat, Chat)
    assert chat.messages[-1] == {"role": "assistant", "content": texts[0]}
