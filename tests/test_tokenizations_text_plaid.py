"""PLaID++'s text: its lines, the paper's own examples, and what contradictions cost."""

from __future__ import annotations

import numpy as np
import pytest

from crystaljax.structures import to_structures
from crystaljax.tokenizations.text.plaid import PlaidText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEXT = PlaidText()
STRICT = PlaidText(consistent=True)
RUTILE = """\
Ti2O4
Spacegroup: P42/mnm
abc: 4.59 4.59 2.96
angles: 90.00 90.00 90.00
Sites (6)
Ti 0.000 0.000 0.000 2a
O 0.305 0.305 0.000 4f"""


def test_rutile() -> None:
    crystals = WyckoffText().decode(["136\n4.594 2.959\nTi 2a\nO 4f 0.3048"]).crystals
    assert TEXT.encode(crystals) == [RUTILE]
    decoded = STRICT.decode([RUTILE])
    assert WyckoffText().encode(decoded.crystals) == ["136\n4.590 2.960\nTi 2a\nO 4f 0.3050"]


@pytest.mark.parametrize(
    ("text", "number", "formula"),
    [
        (
            "Mn8O12F4 Spacegroup: C2/c abc: 9.55 4.98 6.95 angles: 90.00 96.49 90.00 Sites (24)"
            " Mn 0.826 0.495 0.074 8f O 0.832 0.906 0.599 8f O 0.000 0.489 0.250 4e"
            " F 0.000 0.000 0.000 4a",
            15,
            "Mn8 O12 F4",
        ),
        (
            "Ti4Ni4Sn4 Spacegroup: F-43m abc: 5.89 5.89 5.89 angles: 90.00 90.00 90.00 Sites (12)"
            " Ti 0.500 0.500 0.500 4b Ni 0.750 0.750 0.750 4d Sn 0.000 0.000 0.000 4a",
            216,
            "Ti4 Ni4 Sn4",
        ),
        (
            "Ho4Al4Ni4 Spacegroup: Pnma abc: 6.91 4.32 7.44 angles: 90.00 90.00 90.00 Sites (12)"
            " Ho 0.005 0.250 0.195 4c Al 0.190 0.250 0.590 4c Ni 0.789 0.250 0.591 4c",
            62,
            "Ho4 Al4 Ni4",
        ),
    ],
)
def test_texts_of_the_paper(text: str, number: int, formula: str) -> None:
    """Table 3 of arXiv 2509.07150, in lines again; by spglib the space group that they say."""
    for mark in ("Spacegroup", "abc", "angles", "Sites"):
        text = text.replace(f" {mark}", f"\n{mark}")
    head, _, sites = text.partition(") ")
    words = sites.split()
    lines = [" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]
    decoded = STRICT.decode(["\n".join([f"{head})", *lines])])
    assert decoded.reasons == [None]
    (structure,) = to_structures(decoded.crystals)
    assert structure is not None
    assert structure.composition.formula == formula
    assert structure.get_space_group_info(symprec=0.01)[1] == number


def test_the_fixed_is_exact_again() -> None:
    """Thirds, and equal lengths."""
    crystals = WyckoffText().decode(["194\n3.2094 5.2108\nMg 2c"]).crystals
    decoded = STRICT.decode(TEXT.encode(crystals)).crystals
    np.testing.assert_allclose(decoded.frac[0, 0], [1 / 3, 2 / 3, 1 / 4], atol=1e-7)
    np.testing.assert_allclose(decoded.lattice[0], [3.21, 3.21, 5.21, 90, 90, 120], atol=1e-5)


def test_empty_lines_and_spaces() -> None:
    spread = "\n\n" + RUTILE.replace("\n", " \n\n  ") + "\n"
    assert TEXT.encode(STRICT.decode([spread]).crystals) == [RUTILE]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\nTi 0.000 0.000 0.000 2a\nO 0.305 0.305 0.000 4f", "", "need six lines"),
        ("Spacegroup: ", "", "'P42/mnm' does not begin with Spacegroup:"),
        ("P42/mnm", "136", "'136' is no symbol of a space group"),
        ("4.59 4.59 2.96", "4.59 2.96", "abc: 3 numbers expected, not '4.59 2.96'"),
        ("90.00 90.00 90.00", "90 x 90", "angles: 3 numbers expected"),
        ("Sites (6)", "Sites 6", "is not Sites"),
        ("0.305 0.305 0.000 4f", "0.305 0.305 4f", "is no site"),
        ("0.305 0.305 0.000 4f", "0.305 nan 0.000 4f", "a site's place: 3 numbers expected"),
        ("4f", "4z", "'4z' is no Wyckoff position of space group 136"),
        ("4f", "2f", "'2f' is no Wyckoff position"),
        ("\nO ", "\nOx ", "unknown element 'Ox'"),
    ],
)
def test_faults(old: str, new: str, reason: str) -> None:
    decoded = TEXT.decode([RUTILE, RUTILE.replace(old, new), RUTILE])
    assert decoded.ok.tolist() == [True, False, True]
    assert reason in (decoded.reasons[1] or "")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Ti2O4", "Ti2O5", "do not have the formula 'Ti2O5'"),
        ("Ti2O4", "TiO2", "do not have the formula"),
        ("Ti2O4", "rutile", "'rutile' is no formula"),
        ("(6)", "(7)", "6 atoms, not 7"),
        ("4.59 4.59", "4.59 4.61", "does not have the metric of space group 136"),
        ("90.00 90.00 90.00", "90.00 90.00 91.00", "does not have the metric"),
        ("0.305 0.305", "0.305 0.308", "not on their Wyckoff positions"),
        ("0.305 0.305 0.000", "0.305 0.305 0.500", "not on their Wyckoff positions"),
    ],
)
def test_contradictions(old: str, new: str, reason: str) -> None:
    """Passed over as PLaID++'s reader does, unless it is asked otherwise."""
    text = RUTILE.replace(old, new)
    assert TEXT.encode(TEXT.decode([text]).crystals) == [RUTILE]
    decoded = STRICT.decode([RUTILE, text])
    assert decoded.ok.tolist() == [True, False]
    assert reason in (decoded.reasons[1] or "")
