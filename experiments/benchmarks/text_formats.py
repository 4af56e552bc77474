"""Tokenizations of crystals: speed, length, and accuracy of the round trip.

    taskset -c 0 python experiments/benchmarks/text_formats.py

Cost: a minute per format on one core. The last line printed is one JSON object; `value` is the
speed of decoding of the first tokenization. `tokens` is the number of tokens per crystal, mean and
95th percentile: of the hybrid sequence, or of texts with each tokenizer (BPE is trained on
`learnt`; `pretrained` are tokenizers of models). `ceiling` is the share of crystals that are the
same after encoding and decoding: by StructureMatcher with default tolerances (`matched`), with ltol
0.05, stol 0.05 and an angle of 1 degree (`matched_closely`), and by the space group of a symmetry
search (`space_group`). Without the extra `llm` texts are not tokenised.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from sources import shared_table, title

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.structures import to_cells, to_structures
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.text.cutting import N_BPE, Cutting, make_tokenizer
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import create_tokenization, kind_of, tokenization_names
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    tokenizations: tuple[str, ...] = field(default_factory=tokenization_names)
    """Names, or FILE.py:CLASS, with options if any."""
    source: str = field(default_factory=lambda: shared_table("test"))
    """A file of structures, or "prototypes"."""
    learnt: str = field(default_factory=lambda: shared_table("train"))
    """The same, to train BPE on."""
    n_bpe: int = N_BPE
    """Tokens of BPE."""
    pretrained: tuple[str, ...] = ()
    """Tokenizers of models: folders, or names on the hub."""
    n_matched: int = 300
    """Number of crystals, evenly spread, that are matched."""
    repeats: int = 5
    """Number of timed runs; the median is reported."""
    symprec: float = 0.01
    """Å, tolerance of the symmetry search for decoded crystals."""


def median_seconds(run: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result of a run, and the median time of the runs after the first."""
    result, seconds = run(), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def ceiling(written: Crystals, read: Crystals, symprec: float) -> dict[str, float]:
    """Shares of the crystals that are the same after decoding."""
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


def lengths(tokens: Sequence[Sized]) -> dict[str, float]:
    """Mean and 95th percentile."""
    n = np.array([len(each) for each in tokens])
    return {"mean": round(float(n.mean()), 1), "p95": round(float(np.percentile(n, 95)))}


def token_lengths(
    format: TextFormat, texts: list[str], learnt: Crystals, config: Config
) -> dict[str, Any]:
    """Numbers of tokens of a text with each tokenizer of the format, and sizes of vocabularies."""
    found: dict[str, Any] = {}
    cuttings: tuple[Cutting, ...] = get_args(Cutting)
    for cutting in cuttings:
        if cutting == "own" and not hasattr(format, "vocabulary"):
            continue
        n_bpe = config.n_bpe if cutting == "bpe" else None
        taught = format.encode(learnt) if cutting == "bpe" else texts
        tokenizer = make_tokenizer(cutting, taught, format, n_bpe)
        size = tokenizer.n_vocabulary()
        found[cutting] = lengths(tokenizer.encode(texts)) | {"vocabulary": size}
    for name in config.pretrained:
        found[name] = lengths(Tokenizer.load(name).encode(texts))
    return found


def measure(name: str, crystals: Crystals, learnt: Crystals, config: Config) -> dict[str, Any]:
    """Measurements of one tokenization."""
    made: Any = create_tokenization(name)
    if kind_of(name) == "hybrid":
        made = replace(made, max_sites=int(crystals.n_sites.max()))
    written, encoding = median_seconds(lambda: made.encode(crystals), config.repeats)
    decoded, decoding = median_seconds(lambda: made.decode(written), config.repeats)
    n = len(crystals)
    some = np.linspace(0, n - 1, min(config.n_matched, n)).astype(int)
    if kind_of(name) == "hybrid":
        tokens: dict[str, Any] = {
            "own": lengths([range(TOKENS_PER_SITE * x + 1) for x in written.n_sites[some]])
        }
    else:
        tokens = {"characters": lengths(written)}
        if find_spec("transformers"):
            tokens |= token_lengths(made, [written[i] for i in some], learnt, config)
    return {
        "encode_per_s": round(n / encoding),
        "decode_per_s": round(n / decoding),
        "tokens": tokens,
        "decoded": round(float(decoded.ok.mean()), 4),
        "ceiling": ceiling(crystals[some], decoded.crystals[some], config.symprec),
    }


def crystals_of(source: str) -> Crystals:
    """Crystals of a source, on the host."""
    return load(Path(source) if Path(source).exists() else source).crystals.to_numpy()


def main(config: Config) -> None:
    warnings.simplefilter("ignore")  # pymatgen's
    crystals, learnt = crystals_of(config.source), crystals_of(config.learnt)
    found = {name: measure(name, crystals, learnt, config) for name in config.tokenizations}
    report = {
        "name": "text_formats",
        "value": found[config.tokenizations[0]]["decode_per_s"],
        "unit": "crystals/s",
        "hardware": hardware(),
        "source": title(config.source),
        "crystals": len(crystals),
        "crystals_matched": min(config.n_matched, len(crystals)),
        "tokenizations": found,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
