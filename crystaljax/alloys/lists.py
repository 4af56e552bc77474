"""Lists of single phases in JSON files, with their provenance; some are shipped."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from crystaljax.alloys.composition import read_formula, write_formula, write_percentages
from crystaljax.alloys.curation import PURITY, PurityConfig, ServedPurity, curate
from crystaljax.alloys.engines.choice import EngineConfig
from crystaljax.alloys.engines.thermodynamics import Thermodynamics
from crystaljax.alloys.family import load_family
from crystaljax.alloys.grid import GridConfig, Roles
from crystaljax.alloys.lattice import BCC
from crystaljax.alloys.reward import AlloyReward
from crystaljax.data.files import replacing

log = logging.getLogger(__name__)

FOLDER = Path(__file__).with_name("lists")
"""The lists that crystaljax ships, one JSON file each."""

VERSION = 1
"""Version of the files' layout."""


class ListError(ValueError):
    """Error: a file is not a list of phases, or is damaged."""


@dataclass(frozen=True)
class PhaseLists:
    """Compositions that an engine found single-phase, with the settings of the search."""

    bcc: tuple[dict[str, float], ...]
    """Compositions of the matrix (amounts)."""
    b2: tuple[dict[str, float], ...]
    """Compositions of the precipitate."""
    engine: EngineConfig
    """Engine that computed the equilibria."""
    grid: GridConfig
    """Grid of the candidates."""
    purity: float
    """Smallest fraction of a single phase."""
    temperatures: tuple[float, ...]
    """Temperatures in K, at one of which it must be reached."""
    lattice: str
    """Kind of the lattice of the family: "bcc"."""
    provenance: Mapping[str, Any]
    """Provenance, for readers: the engine's identity with the database's digest, pycalphad's
    version, the date, the number of candidates, and those that failed."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements of the grid, in alphabetical order."""
        return grid_elements(self.grid)

    def check(self, reward: AlloyReward) -> None:
        """Check that a reward can judge candidates of these phases.

        Warns if they are from another database. ValueError if their lattice is not that of the
        reward's family, its engine lacks elements, or it mixes by volume and some volumes are
        unknown.
        """
        lattice = reward.family.lattice
        if self.lattice != lattice.kind:
            raise ValueError(
                f"the phases are {self.lattice}, and the family {reward.config.family} is"
                f" {lattice.kind}: choose other phases (data.lists) or family (reward.family)"
            )
        engine = reward.config.engine
        _require_elements(self.elements, engine, reward.engine)
        unknown = [element for element in self.elements if element not in lattice.volumes]
        if unknown and reward.config.mix_by == "volume":
            raise ValueError(f"no atomic volume is known of {', '.join(unknown)}: mix by mole")
        if (self.engine.kind, self.engine.database) != (engine.kind, engine.database):
            log.warning(
                "phases that %s (%s) found single are judged by %s (%s)",
                self.engine.database,
                self.engine.kind,
                engine.database,
                engine.kind,
            )


def curate_lists(config: PurityConfig, grid: GridConfig, purity: float = PURITY) -> PhaseLists:
    """The single phases on a grid; errors as in `ServedPurity`.

    ValueError if the grid has an element that the engine lacks.
    """
    with ServedPurity(config) as judge:
        _require_elements(grid_elements(grid), config.engine, judge.engine)
        found = curate(judge.served, grid, purity)
        provenance = {
            "engine": judge.engine.identity,
            "pycalphad": _pycalphad(config.engine),
            "date": datetime.now(UTC).date().isoformat(),
            "tried": found.n_tried,
            "failed": found.failed,
        }
    bcc, b2 = tuple(found.bcc), tuple(found.b2)
    lattice = load_family(config.family).lattice.kind
    return PhaseLists(
        bcc, b2, config.engine, grid, purity, config.temperatures, lattice, provenance
    )


def grid_elements(grid: GridConfig) -> tuple[str, ...]:
    """Elements of a grid, in alphabetical order."""
    roles = grid.roles
    return tuple(sorted({*roles.bcc, *roles.first_site, *roles.second_site}))


def _require_elements(
    elements: Sequence[str], config: EngineConfig, engine: Thermodynamics
) -> None:
    """ValueError: the engine lacks some of the elements."""
    if unknown := [element for element in elements if element not in engine.elements]:
        raise ValueError(
            f"the phases are of {', '.join(elements)}, and the engine {config.database} has no"
            f" {', '.join(unknown)}, only {', '.join(engine.elements)}: choose phases of these"
            " elements, or a database that has the others (engine.database, engine.elements)"
        )


def _pycalphad(engine: EngineConfig) -> str | None:
    """The version of pycalphad, if it was used."""
    if engine.kind != "calphad" or find_spec("pycalphad") is None:
        return None
    from pycalphad import __version__

    return str(__version__)


def write_lists(path: str | PathLike, lists: PhaseLists) -> None:
    """Write a file that `load_lists` reads."""
    content = {
        "version": VERSION,
        "bcc": [write_percentages(one) for one in lists.bcc],
        "b2": [write_formula(one) for one in lists.b2],
        "engine": asdict(lists.engine),
        "grid": asdict(lists.grid),
        "purity": lists.purity,
        "temperatures": lists.temperatures,
        "lattice": lists.lattice,
        "provenance": dict(lists.provenance),
    }
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_lists(name: str | PathLike) -> PhaseLists:
    """Shipped lists by their name, or lists of a JSON file by its path.

    ListError for an unknown name and for a file that is no list of phases; FileNotFoundError.
    """
    path = Path(name)
    if path.suffix != ".json":
        if str(name) not in list_names():
            raise ListError(
                f"no lists {str(name)!r}: there are {', '.join(list_names())}; or give the path of"
                " a .json file"
            )
        path = FOLDER / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ListError(f"{path}: lists of version {content['version']}, not {VERSION}")
        grid = _tuples(content["grid"])
        return PhaseLists(
            tuple(read_formula(formula) for formula in content["bcc"]),
            tuple(read_formula(formula) for formula in content["b2"]),
            EngineConfig(**_tuples(content["engine"])),
            GridConfig(**grid | {"roles": Roles(**_tuples(grid["roles"]))}),
            float(content["purity"]),
            tuple(content["temperatures"]),
            content.get("lattice", BCC.kind),  # missing in older files
            content["provenance"],
        )
    except ListError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ListError(f"{path}: no lists of phases, or damaged ones: {error!r}") from error


def list_names() -> list[str]:
    """The lists that crystaljax ships."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples of a config."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
