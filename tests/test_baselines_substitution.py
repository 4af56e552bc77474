"""Substitution in known structures."""

import numpy as np
import pytest
from pymatgen.core import Element, Lattice, Structure

from crystaljax.baselines.substitution import Substitution
from crystaljax.composition import formulas, mendeleev_numbers
from crystaljax.conditions import Condition
from crystaljax.evaluation.attempts import Attempts, Known
from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
from crystaljax.structures import from_structure, to_structures
from crystaljax.symmetry.analysis import symmetrize


def of_type(group: str, lattice: Lattice, names: list[str], sites: list) -> Structure:
    return Structure.from_spacegroup(group, lattice, names, sites)


def rocksalt(names: list[str], a: float) -> Structure:
    return of_type("Fm-3m", Lattice.cubic(a), names, [[0, 0, 0], [0.5, 0.5, 0.5]])


def perovskite(names: list[str], a: float) -> Structure:
    return of_type("Pm-3m", Lattice.cubic(a), names, [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]])


CAESIUM = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
WURTZITE = of_type(
    "P6_3mc", Lattice.hexagonal(3.8, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]
)


@pytest.fixture(scope="module")
def baseline() -> Substitution:
    """Rocksalt as KCl, LiF and MgO, other types of AB, a perovskite; no NaCl."""
    known = [
        CAESIUM,
        WURTZITE,
        rocksalt(["Mg", "O"], 4.21),
        rocksalt(["K", "Cl"], 6.29),
        rocksalt(["Li", "F"], 4.03),
        perovskite(["Sr", "Ti", "O"], 3.91),
        of_type("Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25] * 3]),
    ]
    crystals, reasons = symmetrize([from_structure(s) for s in known])
    assert not any(reasons)
    return Substitution(crystals, "seven crystals")


def test_rocksalt_for_nacl(baseline: Substitution) -> None:
    found = baseline.propose([Condition(formula="NaCl", formula_units=1)], 5)
    assert formulas(found.crystals) == ["NaCl"] * 4 + [""]
    # First the nearest of each prototype: KCl's rocksalt, CsCl's; ZnS has two atoms too many.
    assert found.crystals.space_group.tolist() == [225, 221, 225, 225, 0]
    assert found.reasons[:4] == [None] * 4
    assert found.reasons[4] == "no more templates for NaCl"
    a = found.crystals.lattice[0, 0]
    assert a == pytest.approx(5.64, rel=0.03)
    truth = Known("test", ["salt"], [from_structure(rocksalt(["Na", "Cl"], 5.64))])
    result = evaluate_csp(
        truth,
        Attempts.of(found.crystals, np.zeros(5, int), found.reasons),
        config=CSPConfig(progress=False),
    )
    assert result["match rate @1"].value == 1
    assert result.columns["crystal"].tolist() == [True] * 4 + [False]


def test_open_number_of_formula_units(baseline: Substitution) -> None:
    found = baseline.propose([Condition(formula="Na2Cl2")], 6)
    assert set(found.crystals.space_group.tolist()) == {225, 221, 186, 0}
    two = baseline.propose([Condition(formula="NaCl", formula_units=2)], 2)
    assert two.crystals.space_group.tolist() == [186, 0]
    wish = Condition(formula="NaCl", space_group=(221,))
    assert baseline.propose([wish], 1).crystals.space_group.tolist() == [221]


def test_elements_go_where_they_fit(baseline: Substitution) -> None:
    """Ba on the place of Sr and Zr on that of Ti, whatever the order of the formula."""
    for formula in ("BaZrO3", "ZrBaO3"):
        found = baseline.propose([Condition(formula=formula)], 2)
        first, second = to_structures(found.crystals, primitive=True)
        assert first is not None and second is not None
        sites = {s.specie.symbol: s for s in first if s.specie.symbol != "O"}
        oxygen = next(site for site in first if site.specie.symbol == "O")
        assert sites["Zr"].distance(oxygen) < sites["Ba"].distance(oxygen)
        swapped = {s.specie.symbol: s for s in second if s.specie.symbol != "O"}
        oxygen = next(site for site in second if site.specie.symbol == "O")
        assert swapped["Zr"].distance(oxygen) > swapped["Ba"].distance(oxygen)


def test_several_conditions_and_none_that_fits(baseline: Substitution) -> None:
    asked = [Condition(formula=f) for f in ("SrF2", "Al2O3", "SrF2")]
    found = baseline.propose(asked, 2)
    assert formulas(found.crystals) == ["SrF2", "", "", "", "SrF2", ""]
    assert found.reasons[2] == "no more templates for Al2O3"
    with pytest.raises(ValueError, match="without a formula"):
        baseline.propose([Condition()], 1)


def test_scale_is_pettifors() -> None:
    scale = mendeleev_numbers()
    assert len(scale) == 119
    for symbol, number in {"Na": 11, "K": 10, "Cl": 99, "O": 101, "Fe": 61}.items():
        assert scale[Element(symbol).Z] == number
