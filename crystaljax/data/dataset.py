"""Symmetrised datasets: built once from a file, kept on disk, memory-mapped when used."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals, Index
from crystaljax.data.build import Settings, build
from crystaljax.data.files import cache_dir as default_cache_dir
from crystaljax.data.files import make_folder
from crystaljax.data.prototypes import prototypes
from crystaljax.data.registry import RESOURCES, fetch
from crystaljax.symmetry.tables import PATH as TABLES_PATH

PROTOTYPES = "prototypes"
"""The name of the embedded dataset."""

_FORMAT = 1  # raise it when the files of a cached dataset change their meaning


@dataclass(frozen=True)
class Dataset:
    """Crystals with their names and properties, row by row.

    Arrays may be memory-mapped and read-only: select with `dataset[rows]`, which reads only those.
    """

    ids: np.ndarray
    """str [B]"""
    crystals: Crystals
    properties: dict[str, np.ndarray]
    """float64 [B] (nan where missing) or str [B] by column name, in the units of the source."""
    n_skipped: int = 0
    """Rows of the source that could not be used."""
    folder: Path | None = None
    """The cache folder, with skipped.csv: the id of each skipped row and the reason."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Index) -> Dataset:
        """Select rows by an int array, a boolean mask or a slice; an integer keeps the axis."""
        if isinstance(index, int | np.integer):
            index = slice(index, index + 1 or None)
        properties = {name: column[index] for name, column in self.properties.items()}
        return Dataset(
            self.ids[index], self.crystals[index], properties, self.n_skipped, self.folder
        )

    @property
    def space_group_counts(self) -> np.ndarray:
        """int [230]: how many crystals each space group has; group g stands at g - 1."""
        return np.bincount(self.crystals.space_group, minlength=231)[1:]

    @property
    def element_counts(self) -> np.ndarray:
        """int [119]: how many crystals have each element, by atomic number."""
        return (element_counts(self.crystals) > 0).sum(axis=0)


def load(
    source: str | Path,
    *,
    symprec: float = 0.01,
    max_sites: int | None = 20,
    max_atoms: int | None = None,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
) -> Dataset:
    """A symmetrised dataset from a file, a folder or a name; built on first use, then cached.

    Args:
      source: a path in one of `readers.FORMATS`, "prototypes" (the embedded set, which takes no
        other argument), or a registered name (`registry.RESOURCES`), downloaded on first use.
      symprec: Å, tolerance of the symmetry search.
      max_sites: crystals with more Wyckoff sites are skipped; None keeps all. The site slots
        are as many as the largest crystal kept needs.
      max_atoms: likewise for the atoms of the primitive cell.
      cache_dir: where datasets are kept; `files.cache_dir()` by default.
      workers: processes that build (all processors by default; 1 builds in this process). A
        script that lets more than one start must guard its entry: `if __name__ == "__main__":`.

    Rows that cannot be used are skipped, counted, listed in the folder's skipped.csv and warned
    of. Errors: those of `readers.read`, and ValueError if no row can be used.
    """
    if source == PROTOTYPES:
        return prototypes()
    if not Path(source).exists() and str(source) in RESOURCES:
        source = fetch(str(source))
    path = Path(source)
    if not path.exists():
        names = ", ".join((PROTOTYPES, *RESOURCES))
        raise FileNotFoundError(f"no file or folder {path}, nor a dataset of that name ({names})")
    settings = Settings(symprec, max_sites, max_atoms)
    root = Path(cache_dir) if cache_dir else default_cache_dir() / "datasets"
    folder = root / f"{path.name.split('.')[0] or 'data'}-{_key(path, settings)}"
    if not (folder / "meta.json").exists():
        make_folder(root)
        build(path, folder, settings, workers or os.cpu_count() or 1)
    return _open(folder)


def _key(path: Path, settings: Settings) -> str:
    """A digest of all that the dataset depends on: file contents, settings, tables, search."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{_FORMAT} {settings} moyopy {version('moyopy')}".encode())
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digest.update(_content(TABLES_PATH))
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _content(file))
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    with file.open("rb") as data:
        return hashlib.file_digest(data, hashlib.blake2b).digest()


def _open(folder: Path) -> Dataset:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))

    def array(name: str) -> np.ndarray:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    return Dataset(
        ids=array("ids"),
        crystals=Crystals(*(array(field.name) for field in fields(Crystals))),
        properties={name: array(file) for name, file in meta["properties"].items()},
        n_skipped=meta["n_skipped"],
        folder=folder,
    )
