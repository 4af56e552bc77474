"""Uniqueness and novelty of 1000 crystals against a training set, on one core.

    taskset -c 0 python experiments/benchmarks/matching.py

Cost: about two minutes on one core, most of it for the plain comparison and for symmetrising the
data the first time. Expect, for 1000 samples against the 11,443 training crystals of mp20_bt:
13 s, and the same verdicts as plain comparison. The last line printed is one JSON object; `value`
is the time of uniqueness and novelty together, the training set's preparation included.

The samples imitate generated ones: a third are training crystals, a third other crystals, all
slightly deformed, and a third are training crystals with elements replaced by similar ones.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace

import numpy as np
from sources import shared_table, title

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.prototypes import substitute, substitutions
from crystaljax.evaluation.matching import StructureSet, novel_mask, unique_mask
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.structures import to_structures
from crystaljax.symmetry.orbits import constrain_lattice, project

LENGTHS = np.array([1, 1, 1, 0, 0, 0])
"""Lattice parameters that are strained."""


@dataclass(frozen=True)
class Config:
    reference: str = field(default_factory=lambda: shared_table("train"))
    """The training set."""
    others: str = field(default_factory=lambda: shared_table("test"))
    """Other crystals, for a third of the samples."""
    n_samples: int = 1000
    """Number of samples to judge."""
    strain: float = 0.03
    """Largest relative change of a lattice length."""
    noise: float = 0.01
    """Largest change of a fractional coordinate, where it is free."""
    plain_samples: int = 150
    """Number of samples whose novelty is also computed by plain StructureMatcher.fit."""
    seed: int = 0
    """Random seed for the draw."""


def stand_ins(config: Config, reference: Crystals, others: Crystals) -> Crystals:
    """Samples in random order: known crystals, other crystals, known ones with new elements."""
    rng = np.random.default_rng(config.seed)
    n_others = config.n_samples // 3
    n_known = config.n_samples - n_others
    known = rng.choice(len(reference), n_known, replace=n_known > len(reference))
    new = rng.choice(len(others), n_others, replace=n_others > len(others))
    to_decorate = reference[known[:n_others]]
    crystals = Crystals.concatenate(
        [decorated(to_decorate, rng), reference[known[n_others:]], others[new]]
    )
    strain = rng.uniform(-config.strain, config.strain, crystals.lattice.shape) * LENGTHS
    noise = rng.uniform(-config.noise, config.noise, crystals.frac.shape)
    crystals = replace(
        crystals,
        lattice=constrain_lattice(crystals.space_group, crystals.lattice * (1 + strain)),
        frac=project(crystals.space_group[:, None], crystals.wyckoff, crystals.frac + noise),
    )
    return crystals.to_numpy()[rng.permutation(len(crystals))]


def decorated(crystals: Crystals, rng: np.random.Generator) -> Crystals:
    """The crystals with each element replaced by one of its family, if possible."""
    maps = []
    for species in crystals.species:
        maps.append(substitutions(np.unique(species[species > 0]), 2, rng)[-1])
    return substitute(crystals, np.array(maps))


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
            not any(matcher.fit(other, structure) for other in pool.get(name, []) if structure)
            for name, structure in zip(names, structures, strict=True)
        ]
    )


def main(config: Config) -> None:
    reference = load(config.reference, workers=1).crystals
    samples = stand_ins(config, reference, load(config.others, workers=1).crystals)
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
        "reference": f"{title(config.reference)} ({len(reference)} crystals)",
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
    run(main, Config, __doc__, prepared=False)
