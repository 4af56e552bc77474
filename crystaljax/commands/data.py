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
    held_out: Path | None = None
    """Write a share of the crystals here instead, for tests. No formula is in both files."""
    share: float = 0.1
    """The share of --held-out."""
    seed: int = 0
    """Random seed for the choice of --held-out."""

    def run(self, console: Console) -> None:
        import numpy as np

        from crystaljax.composition import formulas
        from crystaljax.data.dataset import load
        from crystaljax.data.held_out import held_out
        from crystaljax.data.writers import check_target, write
        from crystaljax.symmetry.orbits import n_atoms
        from crystaljax.symmetry.tables import tables

        if self.held_out is not None and self.output in (None, self.held_out):
            raise ValueError("--held-out needs another --output, for the other crystals")
        for path in filter(None, (self.output, self.held_out)):
            check_target(path)
            source = Path(self.source)
            if path.exists() and source.exists() and path.samefile(source):
                raise FileExistsError(f"{path} is the source: give another file to write to")
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
        if self.output is None:
            return
        rows = {self.output: np.ones(len(data), bool)}
        if self.held_out is not None:
            held = held_out(formulas(crystals), self.share, self.seed)
            rows = {self.output: ~held, self.held_out: held}
        columns = {"material_id": np.array(data.ids), **data.properties}
        for path, mask in rows.items():
            chosen = {name: values[mask] for name, values in columns.items()}
            write(crystals[np.flatnonzero(mask)], path, chosen)
            console.print(f"{mask.sum()} crystals written to {path}")


def _spread(name: str, values: Any) -> str:
    return f"{name}: {values.min()} to {values.max()}, on average {values.mean():.1f}"
