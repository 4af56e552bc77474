"""Find BCC and B2 compositions that are a single phase by an engine, for training data of one's
own.

    python experiments/curate_alloys.py small
    python experiments/curate_alloys.py alcocrni --judge.cache runs/purity.sqlite

`small` takes a minute on one core. `alcocrni`, `al-fe-mn-ti` and `fcc-l12` (FCC and L1₂) make the
lists that are shipped. `paper` has the paper's steps, for a database of its elements. Add
`--judge.pool.kind processes` to use all cores. With a cache, a run that was stopped can be
continued. The lists are written to a JSON file, for `crystaljax.alloys.lists.load_lists`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from crystaljax.alloys.curation import PURITY, PurityConfig
from crystaljax.alloys.family import FCC_L12
from crystaljax.alloys.grid import ROLES, GridConfig, Roles, paper_grid
from crystaljax.alloys.known import KnownConfig, estimated_roles, known_phases
from crystaljax.alloys.lists import curate_lists, write_lists
from crystaljax.alloys.reward import EngineConfig
from crystaljax.data.files import require_absent
from crystaljax.experiment.main import run


@dataclass(frozen=True)
class Config:
    """Find single phases on a grid."""

    judge: PurityConfig = field(default_factory=PurityConfig)
    """Engine, temperatures and workers of the curation."""
    grid: GridConfig = field(default_factory=GridConfig)
    """Grid of compositions to try."""
    entries: Path | None = None
    """CSV table of known phases, such as the Materials Project's. The roles of elements in the grid
    are estimated from it; see `known.known_phases` for its columns."""
    known: KnownConfig = field(default_factory=KnownConfig)
    """Entries that count as known."""
    purity: float = PURITY
    """Smallest mole fraction of the phase, at any of the temperatures."""
    output: Path = Path("runs/alloys.json")
    """Output file for the lists."""


PRESETS = {
    "small": (
        "One CPU core, 1 minute: Cr-rich BCC and NiAl.",
        Config(grid=GridConfig(Roles(("Cr",), ("Al",), ("Ni",)), parts=(2,), site_parts=(2,))),
    ),
    "alcocrni": ("One CPU core, 5 minutes: Al-Co-Cr-Ni by alcocrni.tdb.", Config()),
    "al-fe-mn-ti": (
        "One CPU core, 1 minute: Al-Fe-Mn-Ti by COST507.tdb, BCC of at most two elements.",
        Config(
            PurityConfig(EngineConfig("COST507.tdb", elements=ROLES["al-fe-mn-ti"].bcc)),
            GridConfig(ROLES["al-fe-mn-ti"], most_bcc=2, site_parts=(2,)),
        ),
    ),
    "fcc-l12": (
        "One CPU core, 2 minutes: FCC and L12 of Al-Co-Cr-Ni by alcocrni.tdb.",
        Config(
            PurityConfig(temperatures=(873.15, 1073.15, 1273.15, 1473.15), family="fcc-l12"),
            GridConfig(FCC_L12.roles["al-co-cr-ni"], parts=(10,), site_parts=(4,), site_ratio=3),
            output=Path("runs/fcc-l12.json"),
        ),
    ),
    "paper": (
        "The steps of arXiv 2511.12036 on TCHEA7, by Thermo-Calc, which needs a licence. The paper"
        " does not print who is where: give --entries, or --grid.roles.",
        Config(
            PurityConfig(EngineConfig("TCHEA7", "tc-python")),
            paper_grid(ROLES["paper"]),
        ),
    ),
}


def main(config: Config) -> None:
    require_absent(config.output)
    grid = config.grid
    if config.entries is not None:
        known = known_phases(config.entries, config.known)
        grid = replace(grid, roles=estimated_roles(known))
        Console().print(
            f"{len(known.bcc)} known BCC and {len(known.b2)} known B2 phases: {grid.roles}"
        )
    lists = curate_lists(config.judge, grid, config.purity)
    write_lists(config.output, lists)
    tried, failed = lists.provenance["tried"], len(lists.provenance["failed"])
    Console().print(
        f"{len(lists.bcc)} of {tried['bcc']} BCC and {len(lists.b2)} of {tried['b2']} B2 candidates"
        f" are single, {failed} failed: {config.output}"
    )


if __name__ == "__main__":
    run(main, PRESETS)
