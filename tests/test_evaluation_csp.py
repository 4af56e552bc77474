"""Crystal structure prediction: known answers by hand, and the direct loop."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from small_potential import CentredPotential

from crystaljax.data.readers import read
from crystaljax.evaluation.attempt_energies import csp_energies
from crystaljax.evaluation.attempts import Attempts, Known, displacements, ranks
from crystaljax.evaluation.csp import CSPConfig, CSPEvaluation, evaluate_csp
from crystaljax.rewards.ehull import EnergyAboveHull, load_hull
from crystaljax.structures import from_structure, to_structure
from crystaljax.symmetry.analysis import symmetrize

QUIET = CSPConfig(progress=False)


def rocksalt(first: str = "Na", second: str = "Cl", a: float = 5.6) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def caesium(first: str = "Na", second: str = "Cl", a: float = 3.5) -> Structure:
    return Structure(Lattice.cubic(a), [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]])


def zincblende(first: str = "Na", second: str = "Cl", a: float = 6.0) -> Structure:
    return Structure.from_spacegroup(
        "F-43m", Lattice.cubic(a), [first, second], [[0, 0, 0], [0.25, 0.25, 0.25]]
    )


def known(*structures: Structure, name: str = "test") -> Known:
    cells = [from_structure(s) for s in structures]
    return Known(name, [f"id-{i}" for i in range(len(cells))], cells)


def attempts(*given: tuple[int, Structure | None]) -> Attempts:
    """Attempts at test crystals by their rows."""
    target = np.array([row for row, _ in given])
    cells = [None if s is None else from_structure(s) for _, s in given]
    reasons = ["no crystal" if cell is None else None for cell in cells]
    return Attempts(cells, reasons, np.arange(len(given)), target, ranks(target))


def counts(result: CSPEvaluation, name: str) -> tuple[int, int]:
    metric = result[name]
    return metric.count, metric.total  # type: ignore[union-attr]


def test_the_same_crystal_in_any_cell_matches() -> None:
    truth = known(rocksalt(), rocksalt().get_primitive_structure())
    same = [
        rocksalt(),
        rocksalt().get_primitive_structure(),
        rocksalt() * (2, 1, 1),
        rocksalt(a=6.0),  # lengths are compared at one volume
    ]
    shifted = rocksalt()
    shifted.translate_sites(range(8), [0.1, 0.2, 0.3])
    turned = Structure(
        rocksalt().lattice.matrix @ np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        rocksalt().species,
        rocksalt().frac_coords,
    )
    other_setting = Structure(  # another basis of the same lattice
        np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ rocksalt().lattice.matrix,
        rocksalt().species,
        rocksalt().frac_coords @ np.linalg.inv([[1, 1, 0], [0, 1, 0], [0, 0, 1]]),
    )
    permuted = Structure.from_sites(rocksalt().sites[::-1])
    tried = [*same, shifted, turned, other_setting, permuted]
    found, failures = displacements(
        truth, attempts(*((0, s) for s in tried), *((1, s) for s in tried[:2]))
    )
    np.testing.assert_allclose(found, 0, atol=1e-4)
    assert not failures


def test_what_does_not_match() -> None:
    truth = known(rocksalt())
    wrong = [
        caesium(),
        rocksalt("K", "Cl"),
        Structure(
            Lattice.cubic(3.5), ["Na", "Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
        ),
        None,
    ]
    found, _ = displacements(truth, attempts(*((0, s) for s in wrong)))
    assert np.isnan(found).all()
    # An exchange of the elements is the same crystal in rocksalt, and another one in perovskite.
    assert displacements(truth, attempts((0, rocksalt("Cl", "Na"))))[0] < 1e-4
    perovskites = [
        Structure.from_spacegroup(
            "Pm-3m", Lattice.cubic(3.9), [*names, "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
        )
        for names in (["Ca", "Ti"], ["Ti", "Ca"])
    ]
    assert np.isnan(displacements(known(perovskites[0]), attempts((0, perovskites[1])))[0]).all()
    # The tolerances are wide: half the way from rocksalt to zincblende is less than stol.
    assert displacements(truth, attempts((0, zincblende())))[0] == pytest.approx(0.433, abs=0.001)


def moved() -> Structure:
    """Rocksalt with one of the two atoms of its primitive cell 0.4 Å off."""
    structure = rocksalt().get_primitive_structure()
    structure.translate_sites([0], [0.4, 0, 0], frac_coords=False)
    return structure


def test_rates_at_k_by_hand() -> None:
    """Three test crystals: found at the second and third attempt, at the first, and not at all."""
    truth = known(rocksalt(), caesium("Cs", "Cl", 4.1), zincblende("Zn", "S", 5.4))
    tried = attempts(
        (0, caesium()),
        (1, caesium("Cs", "Cl", 4.0)),
        (0, moved()),
        (0, rocksalt()),
        (2, None),
        (2, caesium("Zn", "S")),
        (2, zincblende("Zn", "Se")),
    )
    train = known(caesium("Cs", "Cl"), rocksalt("Li", "F", 4), name="train")
    result = evaluate_csp(truth, tried, train, config=CSPConfig(at=(1, 2, 3), progress=False))
    assert counts(result, "match rate @1") == (1, 3)
    assert counts(result, "match rate @2") == (2, 3)
    assert counts(result, "match rate @3") == (2, 3)
    assert counts(result, "match rate @1 (formula-disjoint)") == (0, 2)
    assert counts(result, "match rate @3 (formula-disjoint)") == (1, 2)
    off = 0.2 / (5.6**3 / 8) ** (1 / 3)
    assert result["RMSE @1"].value == pytest.approx(0, abs=1e-4)
    assert result["RMSE @2"].value == pytest.approx(off / 2, abs=1e-4)
    assert result["RMSE @3"].value == pytest.approx(0, abs=1e-4)
    assert result["cRMSE @1"].value == pytest.approx(1 / 3, abs=1e-4)
    assert result["cRMSE @2"].value == pytest.approx((off + 0.5) / 3, abs=1e-4)
    assert result["cRMSE @2 (formula-disjoint)"].value == pytest.approx((off + 0.5) / 2, abs=1e-4)
    assert counts(result, "crystal") == (6, 7)
    assert counts(result, "as asked") == (5, 7)
    assert result.targets["first_match"].tolist() == [2, 1, 0]
    assert result.targets["matching_attempts"] == pytest.approx([2 / 3, 1, 0])
    assert result["matching attempts"].value == pytest.approx(100 * (2 / 3 + 1) / 3)
    assert result["matching attempts (formula-disjoint)"].text == "33.3 ± 33.3 %"
    assert (
        "formulas that are not in the training set"
        in result["match rate @1 (formula-disjoint)"].denominator
    )
    assert result["RMSE @1"].denominator == "test crystals that are matched"


def test_validity_by_radii() -> None:
    """Half the sum of the covalent radii of Na and Cl (1.66 and 1.02 Å) is 1.34 Å."""
    truth = known(rocksalt())
    tried = attempts((0, rocksalt(a=2.60)), (0, rocksalt(a=2.75)), (0, rocksalt("Na", "Na")))
    result = evaluate_csp(truth, tried, config=QUIET)
    assert result.columns["valid_structure"].tolist() == [False, True, True]
    assert counts(result, "valid composition") == (3, 3)
    three = attempts(
        (0, caesium()), (0, Structure(Lattice.cubic(5), ["Na", "Cl", "Cl"], np.eye(3) / 2))
    )
    assert counts(evaluate_csp(truth, three, config=QUIET), "valid composition") == (1, 2)


def test_nothing_and_missing_attempts_are_not_found() -> None:
    truth = known(rocksalt(), caesium("Cs", "Cl", 4.1))
    result = evaluate_csp(truth, attempts((0, None)), config=QUIET)
    assert counts(result, "match rate @1") == (0, 2)
    assert result["cRMSE @1"].value == 0.5
    assert np.isnan(result["RMSE @1"].value)
    assert "attempts at 1 of the test crystals" in result.context[0]
    reported = result.to_dict()
    assert reported["samples"] == 1


def test_an_attempt_at_a_formula_is_one_at_each_polymorph() -> None:
    truth = known(rocksalt(), caesium())
    tried = Attempts(
        [from_structure(caesium())], [None], np.array([0, 0]), np.array([0, 1]), np.array([0, 0])
    )
    result = evaluate_csp(truth, tried, config=QUIET)
    assert counts(result, "match rate @1") == (1, 2)
    assert counts(result, "crystal") == (1, 1)


def test_attempts_of_crystals() -> None:
    crystals, reasons = symmetrize([from_structure(rocksalt()), from_structure(caesium())])
    assert reasons == [None, None]
    made = Attempts.of(crystals.padded(4), np.array([1, 0, 1, 1]), [None, None, "lost", None])
    assert made.rank.tolist() == [0, 0, 1, 2]
    assert made.reasons == [None, None, "lost", "no crystal"]
    assert len(made.cells[0].species) == 2  # type: ignore[union-attr]


def test_energies_and_relaxation() -> None:
    """A potential whose minimum is the truth: relaxed attempts match, and have its energy."""
    truth = known(rocksalt().get_primitive_structure())
    potential, hull = CentredPotential(truth.cells[0]), load_hull("demonstration")
    tried = attempts((0, moved()), (0, None), (0, rocksalt("K", "Cl")), (0, caesium()))
    found = csp_energies(EnergyAboveHull(potential, hull), truth, tried)
    assert found.reasons[1] == "no crystal"
    result = evaluate_csp(truth, tried, None, found, QUIET)
    assert counts(result, "energy known") == (3, 4)
    assert result["relative energy"].total == 2  # of the formula asked, with an energy
    assert counts(result, "no higher than the truth") == (0, 1)
    assert "relaxed match rate @1" not in result.values

    after = csp_energies(EnergyAboveHull(potential, hull, relax_steps=5), truth, tried)
    result = evaluate_csp(truth, tried, None, after, QUIET)
    assert counts(result, "match rate @1") == (1, 1)
    assert result["RMSE @1"].value > 0.03
    assert result["relaxed RMSE @1"].value == pytest.approx(0, abs=1e-4)
    assert counts(result, "no higher than the truth") == (1, 1)
    assert result["relative energy"].value == pytest.approx(0, abs=1e-9)
    assert counts(result, "match to relaxed")[1] == 4
    assert result["match to relaxed"].denominator == "attempts"


def test_the_reasons_of_comparisons_that_fail_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a note, and in columns of attempts.csv; before and after relaxation alike."""

    def fail(*_: object) -> float:
        raise RuntimeError("no way")

    truth = known(rocksalt().get_primitive_structure())
    potential, hull = CentredPotential(truth.cells[0]), load_hull("demonstration")
    tried = attempts((0, moved()), (0, None), (0, caesium()))
    after = csp_energies(EnergyAboveHull(potential, hull, relax_steps=5), truth, tried)
    fine = evaluate_csp(truth, tried, None, after, QUIET)
    columns = ["not_compared", "relaxed_not_compared", "not_compared_to_relaxed"]
    assert all(fine.columns[name].tolist() == [""] * 3 for name in columns)
    assert not [line for line in fine.context if "could not be compared" in line]
    monkeypatch.setattr("crystaljax.evaluation.attempts.rms_displacement", fail)
    monkeypatch.setattr(StructureMatcher, "get_rms_dist", fail)
    result = evaluate_csp(truth, tried, None, after, QUIET)
    why = "cannot be compared: no way"
    assert all(result.columns[name].tolist() == [why, "", why] for name in columns)
    assert [line for line in result.context if "could not be compared" in line] == [
        f"2 {what} could not be compared, and count as no match: 2 × {why}"
        for what in ("attempts", "relaxed attempts", "attempts and their relaxed forms")
    ]


def test_nothing_is_imported_in_the_time_of_a_comparison() -> None:
    """The first comparison of a process has as much time as the others."""
    code = """
import sys
from contextlib import contextmanager
from crystaljax.evaluation import attempts, matching

late = set()

@contextmanager
def watched(seconds):
    before = set(sys.modules)
    yield
    late.update(name for name in set(sys.modules) - before if "." in name)

attempts.time_limit = matching.time_limit = watched
import numpy as np
from crystaljax.crystal import AtomicCell

frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
cell = AtomicCell(np.diag([3.5, 3.5, 3.5]), frac, np.array([11, 17]))
moved = AtomicCell(np.diag([3.5, 3.5, 3.6]), frac + 0.02 * np.eye(3)[:2], np.array([17, 11]))
truth = attempts.Known("truth", ["a"], [cell])
zero = np.zeros(1, int)
found, failures = attempts.displacements(truth, attempts.Attempts([moved], [None], *[zero] * 3))
assert np.isfinite(found).all() and not failures
assert not late, late
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seed", [0])
def test_as_the_direct_loop_on_real_crystals(seed: int, shared: Path) -> None:
    rng = np.random.default_rng(seed)
    records = list(islice(read(shared / "data" / "mp20_bt" / "test.csv.gz"), 150))
    truth = Known("mp20_bt/test", [r.id for r in records], [r.cell for r in records if r.cell])
    structures = [to_structure(cell) for cell in truth.cells]
    given = []
    for row in rng.choice(150, 30, replace=False).tolist():
        near, far = structures[row].copy(), structures[row] * (1, 2, 1)
        near.apply_strain(rng.uniform(-0.1, 0.1, 3))
        near.perturb(rng.uniform(0, 0.5), seed=int(rng.integers(1 << 30)))
        far.perturb(1.0, seed=int(rng.integers(1 << 30)))
        given += [(row, near), (row, far)]
    found, failures = displacements(truth, attempts(*given))
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    direct = [matcher.get_rms_dist(structure, structures[row]) for row, structure in given]
    expected = np.array([np.nan if r is None else r[0] for r in direct])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < np.isfinite(found).mean() < 0.95 and not failures
