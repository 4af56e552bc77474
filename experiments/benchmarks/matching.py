"""Uniqueness and novelty of 1000 crystals against a training set, on one core.

    taskset -c 0 python experiments/benchmarks/matching.py \
        --reference ../shared/data/mp20_bt/train.csv.gz \
        --samples ../shared/data/mp20_bt/test.csv.gz

Cost: two minutes on one core, most of it for reading the data the first time and for the plain
comparison. Expect, for 1000 samples (test crystals with strained lattices, a third of them
training crystals) against 11,443: EXPECTED. The last line printed is one JSON object; `value` is
the time of uniqueness and novelty together, the training set's preparation included.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.evaluation.matching import StructureSet, novel_mask, unique_mask
from crystaljax.hardware import hardware
from crystaljax.structures import to_structures


@dataclass(frozen=True)
class Config:
    reference: Path = Path("../shared/data/mp20_bt/train.csv.gz")
    """The training set."""
    samples: Path = Path("../shared/data/mp20_bt/test.csv.gz")
    """Crystals that, perturbed, stand for generated ones."""
    n_samples: int = 1000
    """How many samples to judge."""
    known: float = 1 / 3
    """Fraction of the samples that are taken from the training set."""
    strain: float = 0.03
    """Largest relative change of a lattice length."""
    plain_samples: int = 150
    """Of how many samples novelty is also found by plain StructureMatcher.fit."""
    seed: int = 0
    """Seed of the draw."""


def perturbed(config: Config, reference: Crystals, others: Crystals) -> Crystals:
    """Samples drawn from both sets, with coordinates kept and lattices scaled at random."""
    rng = np.random.default_rng(config.seed)
    n_known = round(config.known * config.n_samples)
    known = rng.choice(len(reference), n_known, replace=False)
    new = rng.choice(len(others), config.n_samples - n_known, replace=False)
    crystals = Crystals.concatenate([reference[np.sort(known)], others[np.sort(new)]])
    scale = 1 + rng.uniform(-config.strain, config.strain, (len(crystals), 1))
    lattice = crystals.lattice * np.where(np.arange(6) < 3, scale, 1)
    crystals = replace(crystals, lattice=lattice.astype(np.float32))
    return crystals[rng.permutation(len(crystals))]


def plain_novel(samples: Crystals, reference: Crystals) -> np.ndarray:
    """Novelty by fit() on every pair of one formula: bool [N]."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()
    names = formulas(samples)
    wanted = np.flatnonzero(np.isin(formulas(reference), names))
    pool: dict[str, list] = {}
    chosen = reference[wanted]
    for name, structure in zip(
        formulas(chosen), to_structures(chosen, primitive=True), strict=True
    ):
        pool.setdefault(name, []).append(structure)
    structures = to_structures(samples, primitive=True)
    return np.array(
        [
            not any(matcher.fit(other, structure) for other in pool.get(name, []))
            for name, structure in zip(names, structures, strict=True)
        ]
    )


def main(config: Config) -> None:
    reference = load(config.reference, workers=1).crystals
    samples = perturbed(config, reference, load(config.samples, workers=1).crystals)
    to_structures(samples[:1], primitive=True)  # imports pymatgen before the clock starts

    start = time.perf_counter()
    generated = StructureSet.from_crystals(samples, "samples")
    unique = unique_mask(generated)
    time_unique = time.perf_counter() - start
    start = time.perf_counter()
    training = StructureSet.from_crystals(reference, "training set")
    novel = novel_mask(generated, training)
    time_novel = time.perf_counter() - start

    part = samples[: config.plain_samples]
    start = time.perf_counter()
    plain = plain_novel(part, reference)
    time_plain = time.perf_counter() - start
    start = time.perf_counter()
    again = StructureSet.from_crystals(reference, "training set")
    fast = novel_mask(StructureSet.from_crystals(part, "samples"), again)
    time_fast = time.perf_counter() - start

    report = {
        "name": "matching",
        "value": round(time_unique + time_novel, 2),
        "unit": "s",
        "hardware": hardware(),
        "samples": len(samples),
        "reference": len(reference),
        "unique_s": round(time_unique, 2),
        "novel_s": round(time_novel, 2),
        "unique": f"{unique.sum()} / {len(samples)}",
        "novel": f"{novel.sum()} / {len(samples)}",
        "failures": len(generated.failures),
        "plain_samples": len(part),
        "ratio_to_plain_fit_of_equal_formulas": round(time_plain / time_fast, 2),
        "plain_disagreements": int((plain != fast).sum()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
