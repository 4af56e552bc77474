"""`crystaljax data`: the contents of a file or a data set of crystals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.commands.base import Command


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """Read and symmetrise crystals (once, then cached), and describe them."""

    source: Annotated[str, tyro.conf.Positional]
    """A file, a folder or a registered dataset."""
    symprec: float = 0.01
    """Tolerance of the symmetry search, Å."""
    max_sites: int = 20
    """Largest number of Wyckoff sites; crystals with more are left out."""
    output: Path | None = None
    """Also write the crystals to this file: .zip, .csv, .extxyz or .json.gz"""

    def run(self, console: Console) -> None:
        from crystaljax.data.dataset import load
        from crystaljax.data.writers import check_target, write
        from crystaljax.symmetry.orbits import n_atoms
        from crystaljax.symmetry.tables import tables

        if self.output is not None:
            check_target(self.output)
            source = Path(self.source)
            if self.output.exists() and source.exists() and self.output.samefile(source):
                raise FileExistsError(f"{self.output} is the source: give another --output")
        data = load(self.source, symprec=self.symprec, max_sites=self.max_sites)
        crystals = data.crystals.to_numpy()
        counts = data.space_group_counts
        console.print(f"{len(data)} crystals, of {(counts > 0).sum()} space groups")
        console.print(_spread("Wyckoff sites", crystals.n_sites))
        console.print(_spread("atoms in the primitive cell", n_atoms(crystals, primitive=True)))
        table = Table("space group", "crystals", "share", title="the most frequent")
        for row in counts.argsort()[::-1][:10]:
            if counts[row]:
                share = f"{100 * counts[row] / len(data):.1f} %"
                table.add_row(f"{row + 1} {tables().symbol[row]}", str(counts[row]), share)
        console.print(table)
        console.print(f"properties: {', '.join(data.properties) or 'none'}")
        if data.folder is not None:
            console.print(f"cached in {data.folder}")
        if self.output is not None:
            write(crystals, self.output, {"material_id": data.ids, **data.properties})
            console.print(f"written to {self.output}")


def _spread(name: str, values: Any) -> str:
    return f"{name}: {values.min()} to {values.max()}, on average {values.mean():.1f}"
