"""Crystals for the benchmarks: shared tables of the Materials Project, or else prototypes."""

from __future__ import annotations

import os
from pathlib import Path

from crystaljax.data.dataset import PROTOTYPES


def shared_table(part: str) -> str:
    """Path of the table `part` of mp20_bt, or the name of the embedded set if it is absent.

    It is searched in the folder `$CRYSTALJAX_SHARED` (default ../shared).
    """
    folder = Path(os.environ.get("CRYSTALJAX_SHARED", "../shared"))
    path = folder / "data" / "mp20_bt" / f"{part}.csv.gz"
    return str(path) if path.exists() else PROTOTYPES


def title(source: str) -> str:
    """Name of a source in reports: "mp20_bt/train", "prototypes"."""
    path = Path(source)
    return f"{path.parent.name}/{path.name.split('.')[0]}" if path.exists() else source
