"""Public datasets, convex hulls and weights by name, downloaded once and checked.

A checksum comes from the publisher or from a public record of the same download. If it is None, the
first download is trusted and its checksum is stored beside the file, so that a different later copy
is detected. None of these files is needed to install, test or try crystaljax.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from crystaljax.data.files import cache_dir, make_folder, replacing


@dataclass(frozen=True)
class Resource:
    """A file that can be downloaded."""

    name: str
    kind: Literal["crystals", "energies", "weights"]
    """Data sets of crystals, energies for hulls, or weights of models."""
    url: str
    filename: str
    description: str
    checksum: str | None = None
    """'sha256:...' or 'md5:...'; None if no public source gives one."""
    size: int | None = None
    """Bytes, where known."""


_CDVAE = "https://raw.githubusercontent.com/txie-93/cdvae/main/data/mp_20"
_ALEX = "https://huggingface.co/datasets/zdcao/alex-20/resolve/main"
_NEQUIX = "https://github.com/atomicarchitects/nequix/raw"
_FIGSHARE = "https://figshare.com/ndownloader/files"
_MATGL = "https://raw.githubusercontent.com/materialsvirtuallab/matgl/main/pretrained_models"
_MEGNET_FILES = {
    "MEGNet-MP-2019.4.1-BandGap-mfi/model.json": (
        "9f8f4b8709e97c6ce25353f6b6c322ce3b5e031c71115cf6b94d5cd794f39bc2"
    ),
    "MEGNet-MP-2019.4.1-BandGap-mfi/state.pt": (
        "2927ab9646ec3e099a3e42b1358a3c477db7356e2413bfa540fe0106cde628f9"
    ),
    "MEGNet-MP-2018.6.1-Eform/model.json": (
        "d858219134667d55e3c183435475ba248231a67311573373ed7298191f05d0a4"
    ),
    "MEGNet-MP-2018.6.1-Eform/state.pt": (
        "35381368b17a2783f9ee09af5556cf1d84b74bf786b82d3fadd4acb38c51d040"
    ),
}

RESOURCES = {
    resource.name: resource
    for resource in (
        Resource(
            "mp20-train",
            "crystals",
            f"{_CDVAE}/train.csv",
            "mp20-train.csv",
            "MP-20 (Xie et al. 2021), 27,136 Materials Project crystals of up to 20 atoms",
            "sha256:133bab58dba02d316f9f91174839f17802dce648be4e8659d1a42b32b97fa01d",
        ),
        Resource(
            "mp20-val", "crystals", f"{_CDVAE}/val.csv", "mp20-val.csv", "MP-20, 9,047 crystals"
        ),
        Resource(
            "mp20-test", "crystals", f"{_CDVAE}/test.csv", "mp20-test.csv", "MP-20, 9,046 crystals"
        ),
        Resource(
            "alex20-train",
            "crystals",
            f"{_ALEX}/alex20/train.csv",
            "alex20-train.csv",
            "Alex-20 (Cao & Wang 2025), 1,071,694 Alexandria crystals within 0.1 eV/atom",
            "sha256:87a3de8bc8bbe245141e2c1727321c37c7fec001446d35b29c4521a3a8050641",
            3_242_832_648,
        ),
        Resource(
            "alex20-val",
            "crystals",
            f"{_ALEX}/alex20/val.csv",
            "alex20-val.csv",
            "Alex-20, 133,962 crystals",
            "sha256:026bc9a48e068ade16d6c68fee1e69111c66e96f441130a0782702ac2527273f",
            406_115_502,
        ),
        Resource(
            "alex20-test",
            "crystals",
            f"{_ALEX}/alex20/test.csv",
            "alex20-test.csv",
            "Alex-20, 133,962 crystals",
            "sha256:32390891666c66947cc41ef07fd75f3b3e5102e2f1ab6791f5ae43b05f032b39",
            405_090_084,
        ),
        Resource(
            "alexandria-hull",
            "energies",
            f"{_ALEX}/convex_hull_pbe_2023.12.29.json.bz2",
            "convex_hull_pbe_2023.12.29.json.bz2",
            "Entries on the PBE convex hull of Alexandria, 2023-12-29 (CC BY 4.0)",
            size=82_996_526,
        ),
        Resource(
            "mp-energies",
            "energies",
            f"{_FIGSHARE}/52080797",
            "2025-02-01-mp-energies.csv.gz",
            "Formation energies of the Materials Project, with Matbench Discovery (CC BY 4.0)",
            "md5:7eb0c49fc169ba92783f2f6d0d19d741",
        ),
        Resource(
            "mp-entries",
            "energies",
            f"{_FIGSHARE}/40344436",
            "2023-02-07-mp-computed-structure-entries.json.gz",
            "Every entry of the Materials Project, 2023-02-07, with Matbench Discovery (CC BY 4.0)",
            "md5:76fc748db6b175bb80de4c276d27c235",
        ),
        Resource(
            "nequix-mp-1",
            "weights",
            f"{_NEQUIX}/7c2854de8e754b1a60274c7d9d2e014989ed632e/models/nequix-mp-1.nqx",
            "nequix-mp-1.nqx",
            "Weights of Nequix, trained on MPtrj (MIT)",
            "sha256:1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
            2_842_366,
        ),
        Resource(
            "nequix-oam-1",
            "weights",
            f"{_NEQUIX}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/nequix-oam-1.nqx",
            "nequix-oam-1.nqx",
            "Weights of Nequix, trained on OMat24, sAlex and MPtrj (MIT)",
            "sha256:6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c",
            2_869_928,
        ),
        *(
            Resource(
                name,
                "weights",
                f"{_MATGL}/{name}",
                name,
                "A MEGNet of matgl (BSD-3)",
                f"sha256:{digest}",
            )
            for name, digest in _MEGNET_FILES.items()
        ),
    )
}
"""Data sets that can be fetched by name."""


def fetch(resource: str | Resource, folder: Path | None = None) -> Path:
    """The local path of a registered file, downloaded on first use into `folder`.

    A file that is put there by hand, under the name in the error message, is checked and used.
    Errors: ValueError for an unknown name or a wrong checksum, ConnectionError (with instructions)
    if the server cannot be reached, OSError if the folder cannot be written.
    """
    if isinstance(resource, str):
        if resource not in RESOURCES:
            raise ValueError(f"no registered file {resource!r}: choose from {', '.join(RESOURCES)}")
        resource = RESOURCES[resource]
    path = (folder or cache_dir() / "downloads") / resource.filename
    record = path.with_name(f"{path.name}.checksum")
    known = record.read_text().strip() if record.exists() else resource.checksum
    if path.exists() and record.exists():
        return path
    if path.exists():
        _check(path, known, resource)
    else:
        make_folder(path.parent)
        with replacing(path) as temporary:
            _download(resource, temporary, path)
            _check(temporary, known, resource)
    record.write_text((known or f"sha256:{_digest(path, 'sha256')}") + "\n")
    return path


def _check(path: Path, checksum: str | None, resource: Resource) -> None:
    if checksum is None:
        return
    algorithm, expected = checksum.split(":")
    found = _digest(path, algorithm)
    if found != expected:
        raise ValueError(
            f"{resource.filename} from {resource.url} has the {algorithm} {found}, not {expected}:"
            " the copy is damaged or the publisher changed the file; delete it and try again, or"
            " pass the path of a copy you trust"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _download(resource: Resource, temporary: Path, path: Path) -> None:
    request = urllib.request.Request(resource.url, headers={"User-Agent": "crystaljax"})
    bar = Progress("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with urllib.request.urlopen(request, timeout=30) as response, bar:
            total = int(response.headers.get("Content-Length") or 0) or resource.size
            task = bar.add_task(resource.name, total=total)
            with temporary.open("wb") as file:
                while chunk := response.read(1 << 20):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as e:
        reason = e if isinstance(e, urllib.error.HTTPError) else getattr(e, "reason", e)
        raise ConnectionError(
            f"could not download {resource.name} from {resource.url} ({reason}). Without a"
            f" network, fetch that address on another machine and save it as {path}"
        ) from None
    got = temporary.stat().st_size
    if total and got != total:
        raise ConnectionError(
            f"the download of {resource.name} from {resource.url} broke off at {got} of {total}"
            " bytes: try again"
        )
