"""Engines by configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crystaljax.alloys.engines.table import TableEngine
from crystaljax.alloys.engines.thermodynamics import Thermodynamics
from crystaljax.alloys.lattice import BCC, Lattice


@dataclass(frozen=True)
class EngineConfig:
    """Engine that computes equilibria."""

    database: str = "alcocrni.tdb"
    """calphad: a TDB file, or alcocrni.tdb or COST507.tdb, which pycalphad brings; tc-python:
    the name of Thermo-Calc's database, such as TCHEA7; table: a file of equilibria, or a CSV of
    phases in the form of the paper's figure 9."""
    kind: Literal["calphad", "tc-python", "table"] = "calphad"
    """pycalphad, Thermo-Calc (needs a licence and TC-Python), or equilibria from a file."""
    elements: tuple[str, ...] = ()
    """Elements that candidates may have; by default all that the database has of the paper's."""
    exclude: tuple[str, ...] = ()
    """calphad: phases of the database to leave out, such as one that pycalphad cannot model."""
    partition: tuple[str, ...] = ()
    """calphad: an ordered phase and its disordered part, such as BCC_B2 BCC_A2, of a database
    that does not say that they belong together."""


def create_engine(config: EngineConfig, lattice: Lattice = BCC) -> Thermodynamics:
    """The engine of a configuration, for the phases of a lattice.

    Errors: those of its class, and ValueError for an option that it does not have.
    """
    if config.exclude and config.kind != "calphad":
        raise ValueError(f"the engine {config.kind} cannot leave out phases {config.exclude}")
    if config.partition and config.kind != "calphad":
        raise ValueError(f"the engine {config.kind} needs no partition {config.partition}")
    if config.elements and config.kind == "table":
        raise ValueError("the elements of a table are fixed: leave elements out")
    if config.kind == "table":
        return TableEngine.read(config.database, lattice)
    if config.kind == "tc-python":
        from crystaljax.alloys.engines.tc_python import ThermoCalc

        return ThermoCalc(config.database, config.elements, lattice=lattice)
    from crystaljax.alloys.engines.calphad import Calphad

    return Calphad(
        config.database,
        config.elements or None,
        config.exclude,
        lattice=lattice,
        partition=config.partition,
    )


def other_engine(name: str, engine: EngineConfig) -> EngineConfig:
    """The engine of another database, of the same kind unless its name is that of a table's file.

    It has all elements and phases of that database.
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".npz", ".csv"):
        return EngineConfig(name, "table")
    calphad = suffix == ".tdb" or engine.kind == "table"
    return EngineConfig(name, "calphad" if calphad else engine.kind)
