"""The adapter to TC-Python, on a stand-in for its public interface."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crystaljax.alloys.engines.tc_python import ThermoCalc

TEMPERATURES = np.array([400.0, 1000.0, 2000.0])
MIXTURE = {"Ni": 0.25, "Al": 0.25, "Cr": 0.5, "Fe": 0.0}
QUANTITIES = {
    "NPM": {"BCC_B2": 0.4, "BCC_B2#2": 0.6, "LIQUID": 1.0, "SIGMA#1": 1.0},
    "VM": {"BCC_B2": 7.2e-6, "BCC_B2#2": 7.4e-6},
}
# The order of a composition set is not in its name: here the first one is B2.
SITES = {
    ("BCC_B2", 1): {"AL": 0.9, "CR": 0.1, "NI": 0.0},
    ("BCC_B2", 2): {"AL": 0.0, "CR": 0.2, "NI": 0.8},
    ("BCC_B2#2", 1): {"AL": 0.05, "CR": 0.9, "NI": 0.05},
    ("BCC_B2#2", 2): {"AL": 0.05, "CR": 0.9, "NI": 0.05},
}


class CalculationException(Exception):
    """As TC-Python names it."""


class Result:
    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def get_stable_phases(self) -> list[str]:
        if self._temperature > 1500:
            return ["LIQUID"]
        return ["BCC_B2", "BCC_B2#2"] if self._temperature < 500 else ["SIGMA#1"]

    def get_value_of(self, quantity: str) -> float:
        name, inside = quantity.rstrip(")").split("(")
        if name in QUANTITIES:
            return QUANTITIES[name][inside]
        phase, constituent = inside.split(",")
        if name == "X":
            return {"Al": 0.25, "Cr": 0.5, "Ni": 0.25}[constituent]
        assert name == "Y"
        element, sublattice = constituent.split("#")
        return SITES[phase, int(sublattice)][element]


class Calculation:
    def __init__(self, fails_at: float) -> None:
        self.conditions: dict[str, float] = {}
        self._fails_at = fails_at

    def set_condition(self, quantity: str, value: float) -> "Calculation":
        self.conditions[quantity] = value
        return self

    def calculate(self) -> Result:
        assert set(self.conditions) == {"T", "X(Al)", "X(Ni)"}, "Cr follows from the others"
        if self.conditions["T"] == self._fails_at:
            raise CalculationException("too many iterations")
        return Result(self.conditions["T"])


class Session:
    """Stands for a session, a system builder and a system."""

    fails_at = 0.0

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.is_open = False

    def __enter__(self) -> "Session":
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def set_cache_folder(self, folder: str) -> "Session":
        self.asked.append(folder)
        return self

    def select_database_and_elements(self, database: str, elements: list[str]) -> "Session":
        if "Fe" in elements:
            raise CalculationException("no licence for Fe")
        self.asked.append((database, elements))
        return self

    def get_system(self) -> "Session":
        return self

    def with_single_equilibrium_calculation(self) -> Calculation:
        return Calculation(self.fails_at)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    module = ModuleType("tc_python")
    made = Session()
    module.__dict__.update(SimpleNamespace(TCPython=lambda: made).__dict__)
    monkeypatch.setitem(sys.modules, "tc_python", module)
    return made


def test_phases_order_and_lattice(session: Session) -> None:
    with ThermoCalc("TCHEA7", cache_folder="kept") as engine:
        found = engine.equilibria([MIXTURE, MIXTURE], TEMPERATURES)
        assert session.is_open
        assert session.asked == ["kept", ("TCHEA7", ["Al", "Cr", "Ni"])]
    assert not session.is_open
    b2, bcc = found.points(0)[0]
    assert (b2.ordered, bcc.ordered) == (True, False)
    assert (b2.fraction, bcc.fraction) == (0.4, 0.6)
    assert b2.lattice == pytest.approx((2 * 7.2e-6 / 6.02214076e23) ** (1 / 3) * 1e10)
    np.testing.assert_allclose(found.amount("other"), [[0, 1, 0]] * 2)
    np.testing.assert_allclose(found.amount("liquid"), [[0, 0, 1]] * 2)


def test_failures_are_marked(session: Session) -> None:
    session.fails_at = 1000.0
    engine = ThermoCalc(elements=("Al", "Cr", "Fe", "Ni"))
    found = engine.equilibria([MIXTURE, {"Fe": 0.5, "Al": 0.5}, {"W": 1.0}], TEMPERATURES)
    np.testing.assert_array_equal(found.solved, [[1, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert found.reasons[0, 1] == "Thermo-Calc: CalculationException: too many iterations"
    assert "no licence for Fe" in found.reasons[1, 0]
    assert found.reasons[2, 0] == "the engine has no W"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tc_python", None)
    with pytest.raises(ImportError, match="licence"):
        ThermoCalc()
