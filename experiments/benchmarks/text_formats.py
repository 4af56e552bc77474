"""Text formats of crystals: speed, length, and what comes back.

    taskset -c 0 python experiments/benchmarks/text_formats.py

Cost: under a minute a format on one core. The last line printed is one JSON object; `value` is the
speed of decoding of the first format. `ceiling` is the share of crystals that are the same after
encoding and decoding: by StructureMatcher as it is (`matched`), at ltol 0.05, stol 0.05 and an
angle of 1 degree (`matched_closely`), and in the space group that a search finds (`space_group`).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro
from sources import shared_table, title

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.hardware import hardware
from crystaljax.structures import to_cells, to_structures
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.tokenizations.registry import create_format, tokenization_names

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    formats: tuple[str, ...] = field(default_factory=lambda: tokenization_names("text"))
    """Names, or FILE.py:CLASS."""
    source: str = field(default_factory=lambda: shared_table("test"))
    """A file of structures, or "prototypes"."""
    n_matched: int = 300
    """Number of the crystals, evenly spread, that are matched."""
    repeats: int = 5
    """Timed runs; the median counts."""
    symprec: float = 0.01
    """Å, tolerance of the search for the space group of what is read."""


def median_seconds(run: Callable[[], T], repeats: int) -> tuple[T, float]:
    """A result, and the median time it takes to get it after a first time."""
    result, seconds = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def ceiling(written: Crystals, read: Crystals, symprec: float) -> dict[str, float]:
    """Shares of the crystals that are the same when read."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matchers = {
        "matched": StructureMatcher(),
        "matched_closely": StructureMatcher(ltol=0.05, stol=0.05, angle_tol=1),
    }
    originals, copies = (to_structures(x, primitive=True) for x in (written, read))
    pairs = list(zip(originals, copies, strict=True))
    found = {
        name: [bool(one and other and matcher.fit(one, other)) for one, other in pairs]
        for name, matcher in matchers.items()
    }
    searched, _ = symmetrize(list(to_cells(read, primitive=True)), symprec)
    found["space_group"] = (searched.space_group == written.space_group).tolist()
    return {name: round(float(np.mean(same)), 4) for name, same in found.items()}


def measure(name: str, crystals: Crystals, config: Config) -> dict[str, Any]:
    """Of one format."""
    format = create_format(name)
    texts, encoding = median_seconds(lambda: format.encode(crystals), config.repeats)
    decoded, decoding = median_seconds(lambda: format.decode(texts), config.repeats)
    lengths = np.array([len(text) for text in texts])
    n = len(texts)
    some = np.linspace(0, n - 1, min(config.n_matched, n)).astype(int)
    return {
        "encode_texts_per_s": round(n / encoding),
        "decode_texts_per_s": round(n / decoding),
        "characters_mean": round(float(lengths.mean()), 1),
        "characters_p95": int(np.percentile(lengths, 95)),
        "decoded": round(float(decoded.ok.mean()), 4),
        "ceiling": ceiling(crystals[some], decoded.crystals[some], config.symprec),
    }


def main(config: Config) -> None:
    warnings.simplefilter("ignore")  # pymatgen's
    crystals = load(Path(config.source) if Path(config.source).exists() else config.source).crystals
    crystals = crystals.to_numpy()
    found = {name: measure(name, crystals, config) for name in config.formats}
    report = {
        "name": "text_formats",
        "value": found[config.formats[0]]["decode_texts_per_s"],
        "unit": "texts/s",
        "hardware": hardware(),
        "source": title(config.source),
        "crystals": len(crystals),
        "crystals_matched": min(config.n_matched, len(crystals)),
        "formats": found,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
