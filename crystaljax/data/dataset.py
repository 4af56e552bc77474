"""Symmetrised datasets: built once from a file, cached on disk, and memory-mapped."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import warnings
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.build import Settings, build
from crystaljax.data.files import cache_dir as default_cache_dir
from crystaljax.data.files import locked, make_folder
from crystaljax.data.prototypes import prototypes
from crystaljax.data.records import first_reasons
from crystaljax.data.registry import RESOURCES, fetch
from crystaljax.data.rows import Dataset
from crystaljax.data.shards import SKIPPED_FILE
from crystaljax.symmetry.tables import PATH as TABLES_PATH

PROTOTYPES = "prototypes"
"""The name of the embedded dataset."""


def load(
    source: str | Path,
    *,
    symprec: float = 0.01,
    max_sites: int | None = 20,
    max_atoms: int | None = None,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
) -> Dataset:
    """A symmetrised dataset from a file, a folder or a name; built on first use and cached.

    Args:
      source: a path in one of `readers.FORMATS`, "prototypes" (the embedded set, which takes no
        other argument), or a registered name (`registry.RESOURCES`), downloaded on first use.
      symprec: Å, tolerance of the symmetry search.
      max_sites: crystals with more Wyckoff sites are skipped; None keeps all. The number of site
        slots is that of the largest crystal kept.
      max_atoms: likewise for the atoms of the primitive cell.
      cache_dir: folder of the cached datasets; `files.cache_dir()` by default.
      workers: processes that build (all processors by default; 1 builds in this process). A
        script that lets more than one start must guard its entry: `if __name__ == "__main__":`.

    One process at a time builds a dataset; others wait for it. Rows that cannot be used are
    skipped, counted, and listed in the folder's skipped.csv, with a warning. Errors: those of
    `readers.read`, and ValueError if no row can be used.
    """
    if source == PROTOTYPES:
        return prototypes()
    if not Path(source).exists() and str(source) in RESOURCES:
        source = fetch(str(source))
    path = Path(source)
    if not path.exists():
        known = (x.name for x in RESOURCES.values() if x.kind == "crystals")
        names = ", ".join((PROTOTYPES, *known))
        raise FileNotFoundError(f"no file or folder {path}, nor a dataset of that name ({names})")
    settings = _settings(symprec, max_sites, max_atoms)
    root = Path(cache_dir) if cache_dir else default_cache_dir() / "datasets"
    folder = root / f"{path.name.split('.')[0] or 'data'}-{_key(path, settings)}"
    dataset = _open(folder)
    if dataset is None:
        make_folder(root)
        with locked(folder):
            dataset = _open(folder)  # another process may have built it meanwhile
            if dataset is None:
                shutil.rmtree(folder, ignore_errors=True)
                build(path, folder, settings, workers or os.cpu_count() or 1)
                dataset = _read(folder)
    if dataset.n_skipped:  # Python shows a warning of the same words once
        warnings.warn(_about_skipped(dataset, path), stacklevel=1)
    return dataset


def skipped(dataset: Dataset) -> list[tuple[str, str]]:
    """(id, reason) of each skipped row, as far as they were kept."""
    if dataset.folder is None:
        return []
    with (dataset.folder / SKIPPED_FILE).open(encoding="utf-8", newline="") as text:
        return [(id, reason) for id, reason in islice(csv.reader(text), 1, None)]


def _about_skipped(dataset: Dataset, path: Path) -> str:
    """Warning of the skipped rows of a dataset, with the reasons of the first ones."""
    assert dataset.folder is not None
    total = len(dataset) + dataset.n_skipped
    return (
        f"{dataset.n_skipped} of {total} structures of {path} were skipped"
        f" ({first_reasons(skipped(dataset))}); all reasons are in {dataset.folder / SKIPPED_FILE}"
    )


def _settings(symprec: float, max_sites: int | None, max_atoms: int | None) -> Settings:
    """The settings of a build; ValueError for a setting that no crystal can meet."""
    if not 0 < symprec < float("inf"):
        raise ValueError(f"symprec is a distance in Å and must be positive, not {symprec}")
    for name, limit in {"max_sites": max_sites, "max_atoms": max_atoms}.items():
        if limit is not None and limit < 1:
            raise ValueError(f"{name} = {limit} leaves no crystal: give 1 or more, or no limit")
    return Settings(symprec, max_sites, max_atoms)


def _key(path: Path, settings: Settings) -> str:
    """A digest of everything that the dataset depends on: file contents, settings, code, tables."""
    digest = hashlib.blake2b(_code(), digest_size=8)
    digest.update(repr(settings).encode())
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _content(file))
    return digest.hexdigest()


@cache
def _code() -> bytes:
    """A digest of the code that reads and symmetrises: these sources, and versions of libraries."""
    digest = hashlib.blake2b()
    package = Path(__file__).parents[1]
    sources = [*package.glob("data/*.py"), *package.glob("symmetry/*.py"), package / "crystal.py"]
    sources += [package / "composition.py", package / "validity.py", TABLES_PATH]
    for file in sorted(sources):
        digest.update(file.name.encode() + _content(file))
    digest.update(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    return digest.digest()


_LIBRARIES = ("moyopy", "gemmi", "ase", "numpy")


def _content(file: Path) -> bytes:
    with file.open("rb") as data:
        return hashlib.file_digest(data, hashlib.blake2b).digest()


def _open(folder: Path) -> Dataset | None:
    """The dataset in a folder; None if it is missing or incomplete."""
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _read(folder: Path) -> Dataset:
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
