"""Thermodynamic databases: reads and checks TDB files for a set of elements."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

from crystaljax.alloys.composition import PAPER_ELEMENTS
from crystaljax.alloys.engines.thermodynamics import Kind
from crystaljax.alloys.lattice import BCC, FCC, Lattice

log = logging.getLogger(__name__)

VACANCY = "VA"

_SAME_RATIO = 1e-6  # tolerance of numbers of sites

_PARAMETER = re.compile(r"^\s*PAR[A-Z]*\s+\w+\(\s*([\w-]+)[^,]*,([^;)]*)", re.IGNORECASE)
_ELEMENT = re.compile(r"^\s*EL[A-Z]*\s+(\S+)", re.IGNORECASE)
_NUMBER = r"[+-]?[0-9.]"  # its beginning
_COMMAND = re.compile(
    rf"\s*(EL[A-Z]*\s+\S+\s+\S+\s+{_NUMBER}|SP[A-Z]*\s+\S+\s+[A-Z]\S*[0-9]"
    rf"|FU[A-Z]*\s+\S+\s+{_NUMBER}[^!]*;|PAR[A-Z]*\s+\w+\([^!)]*\)\s*{_NUMBER}[^!]*;"
    rf"|PH[A-Z]*\s+\S+\s+\S+\s+{_NUMBER}|CONST[A-Z]*\s+\S+\s*:"
    r"|TY[A-Z_]*\s+\S+\s+(GES|SEQ)\s)[^!]*!",
    re.IGNORECASE,
)
_ATTACHED = re.compile(r"\bATTACH[A-Z_]*\b", re.IGNORECASE)

_HOW_TO_ATTACH = (
    "a phase of two substitutional sublattices with a disordered part (TYPE_DEFINITION ... DIS_PART"
    " BCC_A2); in some files, of MatCalc for one, this is written ATTACH_CONTRIBUTION ..."
    " ORDER_DISORDER, which must be rewritten"
)


class DatabaseError(ValueError):
    """Error: a TDB cannot be read, or cannot describe the requested phases."""


@dataclass(frozen=True)
class OrderedPhase:
    """An ordered phase and the disordered one that shares its energy model."""

    name: str
    disordered: str
    sublattices: tuple[int, int]
    """Indices of the two substitutional sublattices."""


@dataclass(frozen=True)
class AlloyDatabase:
    """A TDB read by pycalphad for a set of elements."""

    source: Any
    """`pycalphad.Database`."""
    elements: tuple[str, ...]
    """Symbols of the chosen elements, as "Al"; a subset of the file's."""
    lattice: Lattice
    """Lattice of the alloy's phases."""
    ordered: OrderedPhase
    """The phase that orders on this lattice."""
    liquids: tuple[str, ...]
    """Names of the liquids: LIQUID, or IONIC_LIQ, or both."""
    missing: tuple[str, ...]
    """Binaries without interaction parameters, such as "Cr-Fe (BCC)": ideal mixing there."""
    extrapolated: tuple[str, ...]
    """Ternaries without them, such as "Al-Cr-Fe (liquid)": extrapolated from their binaries."""
    excluded: tuple[str, ...]
    """Names of the phases that were left out."""
    digest: str
    """Digest of the file's text."""

    def kind(self, phase: str) -> Kind:
        """Kind of a phase."""
        if phase in (self.ordered.name, self.ordered.disordered):
            return self.lattice.kind
        return "liquid" if phase in self.liquids else "other"

    @property
    def has_volumes(self) -> bool:
        """Whether the phase that orders has volumes of all the elements."""
        names = {self.ordered.name, self.ordered.disordered}
        known = {
            str(species).upper()
            for parameter in _search(self.source, names, {"V0"})
            for species in parameter["constituent_array"][0]
        }
        return {element.upper() for element in self.elements} <= known


def database_path(name: str | PathLike) -> Path:
    """A file's path, or that of a database in pycalphad's package, such as "alcocrni.tdb".

    DatabaseError if there is none; ImportError without pycalphad.
    """
    path = Path(name)
    if path.is_file():
        return path
    spec = find_spec("pycalphad")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("CALPHAD needs the package pycalphad: pip install 'crystaljax[alloy]'")
    folder = Path(spec.submodule_search_locations[0]) / "tests" / "databases"
    if path.name == str(name) and (folder / path.name).is_file():
        return folder / path.name
    raise DatabaseError(
        f"there is no database {str(name)!r}: give the path of a TDB file, or one that pycalphad"
        " brings: alcocrni.tdb (Al, Co, Cr, Ni) or COST507.tdb"
    )


def load_database(
    name: str | PathLike,
    elements: tuple[str, ...] | None = None,
    exclude: Sequence[str] = (),
    lattice: Lattice = BCC,
    partition: tuple[str, ...] = (),
) -> AlloyDatabase:
    """Read a TDB for some elements (by default all of the paper's that it has) and check it.

    `exclude`: phases to leave out; see `_leave_out`. `lattice`: that of the phase which orders.
    `partition`: names of an ordered phase and its disordered part, if the file does not relate
    them. Warns of binaries without interaction parameters in the disordered phase or a liquid, and
    of functions that are used but not defined. DatabaseError if the file cannot be read, lacks a
    named element or phase, an ordered phase or a liquid, or has a phase that pycalphad cannot
    model; ImportError without pycalphad.
    """
    path = database_path(name)
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    commands = _commands(text)
    held = {m[1].upper() for m in map(_ELEMENT.match, commands) if m}
    if elements is None:
        elements = tuple(e for e in PAPER_ELEMENTS if e.upper() in held)
    absent = [e for e in elements if e.upper() not in held]
    if absent or len(elements) < 2:
        has = ", ".join(sorted(held - {VACANCY, "/-"})) or "no element"
        wanted = ", ".join(absent) or "two of the elements asked for"
        raise DatabaseError(f"{path}: it lacks {wanted}; it has {has}")
    source = _parse(path, _restrict(commands, held, elements))
    if partition:
        _declare(path, source, partition)
    excluded = _leave_out(path, source, exclude)
    undefined = _check_models(path, source, elements)
    ordered = _ordered_phase(path, source, lattice)
    liquids = _liquids(path, source)
    places = {lattice.kind.upper(): (ordered.name, ordered.disordered), "liquid": liquids}
    missing, extrapolated = (_without_parameters(source, elements, places, n) for n in (2, 3))
    if missing:
        log.warning(
            "%s: no interaction parameters for %s: these mix ideally, so what is computed from"
            " them is a guess",
            path.name,
            ", ".join(missing),
        )
    if undefined:
        log.warning(
            "%s: functions that are used, but not defined, count as zero: %s",
            path.name,
            ", ".join(undefined),
        )
    digest = sha256(text.encode()).hexdigest()
    return AlloyDatabase(
        source, tuple(elements), lattice, ordered, liquids, missing, extrapolated, excluded, digest
    )


def _commands(text: str) -> list[str]:
    """A TDB's commands, without comments (text after "$", or after the "!" that ends a command).

    As in pycalphad, except that a line may have several commands.
    """
    lines = []
    for line in text.splitlines():
        command, ends, rest = line.split("$", 1)[0].partition("!")
        while _COMMAND.match(rest):
            more, _, rest = rest.partition("!")
            command += f"!{more}"
        lines.append(command + ends)
    return "\n".join(lines).split("!")


def _restrict(commands: list[str], held: set[str], elements: tuple[str, ...]) -> str:
    """The TDB without parameters of other elements, which would take most of the reading time.

    Other commands are not changed.
    """
    unwanted = held - {element.upper() for element in elements} - {VACANCY, "/-"}

    def wanted(command: str) -> bool:
        match = _PARAMETER.match(command)
        if match is None:
            return True
        constituents = {word.strip(" %\n\t").upper() for word in re.split("[,:]", match[2])}
        return not constituents & unwanted

    return "!\n".join(command for command in commands if wanted(command))


def _parse(path: Path, text: str) -> Any:
    from pycalphad import Database

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unused definitions in the file
            return Database.from_string(text, fmt="tdb")
    except Exception as error:
        hint = f"; needed is {_HOW_TO_ATTACH}" if _ATTACHED.search(text) else ""
        raise DatabaseError(f"{path}: not a TDB that pycalphad can read: {error}{hint}") from error


def _leave_out(path: Path, source: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Remove phases from a database; returns their names in it.

    If only the ordered phase of a pair is removed, its disordered part remains as a phase of its
    own (if it can be one). DatabaseError for an unknown phase, and for a disordered part that a
    remaining phase needs.
    """
    found = {name.upper() for name in names}
    if unknown := sorted(found - set(source.phases)):
        raise DatabaseError(
            f"{path}: it has no phase {', '.join(unknown)} to leave out; its phases are"
            f" {', '.join(sorted(source.phases))}"
        )
    pairs = {
        name: phase.model_hints["disordered_phase"]
        for name, phase in source.phases.items()
        if phase.model_hints.get("ordered_phase") == name
    }
    for ordered in found & set(pairs):
        if source.phases[ordered].model_hints.get("never_disorder"):
            found.add(pairs[ordered])
    staying = {ordered: part for ordered, part in pairs.items() if ordered not in found}
    for ordered, part in staying.items():
        if part in found:
            raise DatabaseError(
                f"{path}: {part} is the disordered part of {ordered}: leave out {ordered} too, or"
                " neither"
            )
    for name in found:
        del source.phases[name]
    for ordered, part in pairs.items():
        if ordered in found and part in source.phases:
            # pycalphad drops a disordered part if its ordered phase is missing.
            hints = source.phases[part].model_hints
            for hint in ("ordered_phase", "disordered_phase", "never_disorder"):
                hints.pop(hint, None)
            if others := [other for other, shared in staying.items() if shared == part]:
                hints.update(ordered_phase=others[0], disordered_phase=part)
    return tuple(sorted(found))


def _check_models(path: Path, source: Any, elements: tuple[str, ...]) -> tuple[str, ...]:
    """Undefined functions in the phases' models, such as "ALTAB2 (BCC_B2)".

    DatabaseError naming the phases that pycalphad cannot model.
    """
    from pycalphad import Model
    from pycalphad import variables as v

    names = [*(element.upper() for element in elements), VACANCY]
    broken = [
        f"{name} ({len(phase.sublattices)} sublattices, constituents of {len(held)})"
        for name, phase in sorted(source.phases.items())
        if len(held := phase.constituents or ()) != len(phase.sublattices)
    ]
    undefined: list[str] = []
    phases: list[str] = []
    if not broken:
        try:
            phases = sorted(usable_phases(source, names))
        except ValueError as error:
            broken = [str(error)]
    for phase in phases:
        try:
            symbols = Model(source, names, phase).GM.free_symbols
        except Exception as error:  # noqa: BLE001 (any error concerns this phase)
            broken.append(f"{phase} ({type(error).__name__}: {error})")
            continue
        undefined += sorted(
            f"{symbol} ({phase})" for symbol in symbols if not isinstance(symbol, v.StateVariable)
        )
    if broken:
        raise DatabaseError(
            f"{path}: pycalphad cannot model {', '.join(broken)}: mend the file, or leave these"
            " phases out (exclude)"
        )
    return tuple(undefined)


def usable_phases(source: Any, names: Sequence[str]) -> list[str]:
    """Phases that can form from some components ("AL", "VA" ...), except a gas."""
    from pycalphad.core.utils import filter_phases, unpack_species

    phases = filter_phases(source, unpack_species(source, names))
    return [name for name in phases if not name.startswith("GAS")]


def _ordered_phase(path: Path, source: Any, lattice: Lattice) -> OrderedPhase:
    """The phase that orders on a lattice."""
    for name, phase in sorted(source.phases.items()):
        hints = phase.model_hints
        disordered = hints.get("disordered_phase")
        if hints.get("ordered_phase") != name or disordered not in source.phases:
            continue
        pair, sites = substitutional_pair(phase), phase.sublattices
        if pair is None or abs(sites[pair[0]] - lattice.ratio * sites[pair[1]]) > _SAME_RATIO:
            continue
        if _is_of(lattice, source.phases[disordered]):
            return OrderedPhase(name, disordered, pair)
    raise DatabaseError(
        f"{path}: it has no ordered {lattice.ordered} phase: needed is {_HOW_TO_ATTACH}; or name"
        " the two phases (partition)"
    )


def _declare(path: Path, source: Any, partition: tuple[str, ...]) -> None:
    """Declare a phase as the ordered one of another, as DIS_PART does in a TDB."""
    names = tuple(name.upper() for name in partition)
    unknown = [name for name in names if name not in source.phases]
    if unknown or len(names) != 2:
        raise DatabaseError(
            f"{path}: a partition is an ordered phase and its disordered part, not"
            f" {' '.join(names)}; its phases are {', '.join(sorted(source.phases))}"
        )
    for name in names:
        source.phases[name].model_hints.update(ordered_phase=names[0], disordered_phase=names[1])


def substitutional_pair(phase: Any) -> tuple[int, int] | None:
    """The two sublattices of a phase that hold all its elements, if there are exactly two.

    The one with more sites first.
    """
    held = [{str(s) for s in names} - {VACANCY} for names in phase.constituents]
    most = max(held, key=len)
    shared = [n for n, elements in enumerate(held) if elements == most]
    if len(shared) != 2:
        return None
    first, second = sorted(shared, key=lambda n: -float(phase.sublattices[n]))
    return first, second


def _is_of(lattice: Lattice, phase: Any) -> bool:
    """Whether a disordered phase has a lattice, by its name or its interstitial sites."""
    if any(mark in phase.name for mark in lattice.marks):
        return True
    ratios = phase.sublattices
    others = any(mark in phase.name for one in (BCC, FCC) for mark in one.marks)
    return not others and len(ratios) == 2 and ratios[1] == lattice.interstitials * ratios[0]


def _liquids(path: Path, source: Any) -> tuple[str, ...]:
    found = tuple(name for name in sorted(source.phases) if name.startswith(("LIQ", "IONIC_LIQ")))
    if not found:
        raise DatabaseError(
            f"{path}: it has no liquid, without which it is unknown what forms first on cooling"
        )
    return found


def _search(source: Any, phases: set[str], kinds: set[str]) -> list[Any]:
    """Parameters of the given phases and kinds."""
    from tinydb import where

    return source.search(
        where("phase_name").one_of(list(phases)) & where("parameter_type").one_of(list(kinds))
    )


def _without_parameters(
    source: Any, elements: tuple[str, ...], places: Mapping[str, Collection[str]], n: int
) -> tuple[str, ...]:
    """Sets of n elements without an interaction parameter in the phases of a place."""
    missing = []
    for label, names in places.items():
        known = set()
        for parameter in _search(source, set(names), {"G", "L"}):
            species = [one for part in parameter["constituent_array"] for one in part]
            involved = {element.upper() for one in species for element in one.constituents}
            known.add(frozenset(involved - {VACANCY}))
        missing += [
            f"{'-'.join(chosen)} ({label})"
            for chosen in combinations(elements, n)
            if frozenset(element.upper() for element in chosen) not in known
        ]
    return tuple(missing)
