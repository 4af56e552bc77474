"""Find which BCC and B2 phases an engine holds single, for training data of one's own.

    python experiments/curate_alloys.py small
    python experiments/curate_alloys.py alcocrni --judge.cache runs/purity.sqlite

`small` takes a minute on one core. `alcocrni` and `al-fe-mn-ti` make the lists that are shipped;
add `--judge.pool.kind processes` to use all cores. With a cache, a run that was stopped goes on.
The lists come to a JSON file, for `crystaljax.alloys.lists.load_lists`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from crystaljax.alloys.curation import PURITY, PurityConfig
from crystaljax.alloys.grid import ROLES, GridConfig, Roles
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
    """Grid of those that are tried."""
    purity: float = PURITY
    """Mole fraction of the phase that is asked for, at some temperature."""
    output: Path = Path("runs/alloys.json")
    """The file of the lists."""


PRESETS = {
    "small": (
        "Cr-rich BCC and NiAl: a minute.",
        Config(grid=GridConfig(Roles(("Cr",), ("Al",), ("Ni",)), parts=(2,), site_parts=(2,))),
    ),
    "alcocrni": ("Al-Co-Cr-Ni by alcocrni.tdb: half an hour on one core.", Config()),
    "al-fe-mn-ti": (
        "Al-Fe-Mn-Ti by COST507.tdb, BCC of at most two elements: ten minutes on one core.",
        Config(
            PurityConfig(EngineConfig("COST507.tdb", elements=ROLES["al-fe-mn-ti"].bcc)),
            GridConfig(ROLES["al-fe-mn-ti"], most_bcc=2, site_parts=(2,)),
        ),
    ),
}


def main(config: Config) -> None:
    require_absent(config.output)
    lists = curate_lists(config.judge, config.grid, config.purity)
    write_lists(config.output, lists)
    tried, failed = lists.provenance["tried"], len(lists.provenance["failed"])
    Console().print(
        f"{len(lists.bcc)} of {tried['bcc']} BCC and {len(lists.b2)} of {tried['b2']} B2 candidates"
        f" are single, {failed} failed: {config.output}"
    )


if __name__ == "__main__":
    run(main, PRESETS)
