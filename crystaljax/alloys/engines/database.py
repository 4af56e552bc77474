"""Thermodynamic databases: TDB files read for a set of elements, and checked."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

from crystaljax.alloys.composition import PAPER_ELEMENTS

log = logging.getLogger(__name__)

VACANCY = "VA"

_PARAMETER = re.compile(r"^\s*PAR[A-Z]*\s+\w+\(\s*([\w-]+)[^,]*,([^;)]*)", re.IGNORECASE)
_ELEMENT = re.compile(r"^\s*EL[A-Z]*\s+(\S+)", re.IGNORECASE)


class DatabaseError(ValueError):
    """A TDB that cannot be read, or that cannot describe BCC and B2."""


@dataclass(frozen=True)
class OrderedPhase:
    """An ordered B2 phase and the disordered A2 that shares its energy model."""

    name: str
    disordered: str
    sublattices: tuple[int, int]
    """Indices of the two substitutional sublattices."""


@dataclass(frozen=True)
class AlloyDatabase:
    """A TDB as pycalphad reads it, for a set of elements."""

    source: Any
    """`pycalphad.Database`."""
    elements: tuple[str, ...]
    """Symbols that are wanted, as "Al"; a subset of the file's."""
    b2: OrderedPhase
    liquid: str
    """The liquid's name."""
    missing: tuple[str, ...]
    """Binaries without interaction parameters, such as "Cr-Fe (BCC)": ideal mixing there."""
    digest: str
    """Of the file's text."""

    @property
    def has_volumes(self) -> bool:
        """Whether the BCC phase has volumes of all the elements."""
        names = {self.b2.name, self.b2.disordered}
        known = {
            str(species).upper()
            for parameter in _search(self.source, names, {"V0"})
            for species in parameter["constituent_array"][0]
        }
        return {element.upper() for element in self.elements} <= known


def database_path(name: str | PathLike) -> Path:
    """A file's path, or that of a database inside pycalphad's wheel, such as "alcocrni.tdb".

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


def load_database(name: str | PathLike, elements: tuple[str, ...] | None = None) -> AlloyDatabase:
    """Read a TDB for some elements (by default all of the paper's that it has) and check it.

    Warns of binaries whose BCC or liquid has no interaction parameters. DatabaseError: the file
    cannot be read, lacks an element, or has no ordered B2 or no liquid; ImportError without
    pycalphad.
    """
    path = database_path(name)
    text = path.read_text(encoding="utf-8", errors="replace")
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
    b2 = _ordered_phase(path, source)
    liquid = _liquid(path, source)
    missing = _missing_binaries(source, elements, b2, liquid)
    if missing:
        log.warning(
            "%s: no interaction parameters for %s: these mix ideally, so what is computed from"
            " them is a guess",
            path.name,
            ", ".join(missing),
        )
    digest = sha256(text.encode()).hexdigest()
    return AlloyDatabase(source, tuple(elements), b2, liquid, missing, digest)


def _commands(text: str) -> list[str]:
    """A TDB's commands, without comments; each ends at a "!"."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("$"))
    return "\n".join(lines).split("!")


def _restrict(commands: list[str], held: set[str], elements: tuple[str, ...]) -> str:
    """The TDB without parameters of elements that are not wanted: reading takes most of its time.

    Other commands stay as they are.
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
            warnings.simplefilter("ignore")  # of the file's unused definitions
            return Database.from_string(text, fmt="tdb")
    except Exception as error:
        raise DatabaseError(f"{path}: not a TDB that pycalphad can read: {error}") from error


def _ordered_phase(path: Path, source: Any) -> OrderedPhase:
    """The phase that is B2 when ordered and A2 when not."""
    for name, phase in sorted(source.phases.items()):
        hints = phase.model_hints
        disordered = hints.get("disordered_phase")
        if hints.get("ordered_phase") != name or disordered not in source.phases:
            continue
        pair = substitutional_pair(phase)
        if pair is None or phase.sublattices[pair[0]] != phase.sublattices[pair[1]]:
            continue
        if _is_bcc(source.phases[disordered]):
            return OrderedPhase(name, disordered, pair)
    raise DatabaseError(
        f"{path}: it has no ordered B2 phase: needed is a phase of two equal substitutional"
        " sublattices with a disordered BCC part (TYPE_DEFINITION ... DIS_PART BCC_A2); in some"
        " files this is written ATTACH_CONTRIBUTION ... ORDER_DISORDER, which must be rewritten"
    )


def substitutional_pair(phase: Any) -> tuple[int, int] | None:
    """The two sublattices of a phase with all its elements, if just two have them all."""
    held = [{str(s) for s in names} - {VACANCY} for names in phase.constituents]
    most = max(held, key=len)
    shared = [n for n, elements in enumerate(held) if elements == most]
    return (shared[0], shared[1]) if len(shared) == 2 else None


def _is_bcc(phase: Any) -> bool:
    """Whether a disordered phase is BCC: by its name, or three interstitial sites an atom."""
    ratios = phase.sublattices
    return "BCC" in phase.name or "A2" in phase.name or (len(ratios) == 2 and ratios[1] == 3)


def _liquid(path: Path, source: Any) -> str:
    for name in sorted(source.phases):
        if name.startswith(("LIQ", "IONIC_LIQ")):
            return name
    raise DatabaseError(
        f"{path}: it has no liquid, without which it is unknown what forms first on cooling"
    )


def _search(source: Any, phases: set[str], kinds: set[str]) -> list[Any]:
    """Parameters of some phases and kinds."""
    from tinydb import where

    return source.search(
        where("phase_name").one_of(list(phases)) & where("parameter_type").one_of(list(kinds))
    )


def _missing_binaries(
    source: Any, elements: tuple[str, ...], b2: OrderedPhase, liquid: str
) -> tuple[str, ...]:
    """Pairs of elements that have no interaction parameter in the BCC phase or the liquid."""
    missing = []
    places = {"BCC": {b2.name, b2.disordered}, "liquid": {liquid}}
    for label, names in places.items():
        known = set()
        for parameter in _search(source, names, {"G", "L"}):
            involved = {str(s).upper() for part in parameter["constituent_array"] for s in part}
            known.add(frozenset(involved - {VACANCY}))
        missing += [
            f"{a}-{b} ({label})"
            for a, b in combinations(elements, 2)
            if frozenset((a.upper(), b.upper())) not in known
        ]
    return tuple(missing)
