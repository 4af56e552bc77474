"""Baselines of crystal structure prediction: prototype substitution and random search.

    python experiments/csp_baselines.py --train mp20_bt/train.csv.gz --test mp20_bt/test.csv.gz

Each formula gets k structures, which are judged by the protocol of crystal structure prediction of
`crystaljax evaluate`. Substitution takes about a minute on one core, and another one or two the
first time, to symmetrise the training set. Random search takes up to seconds per structure. Expect,
of 100 test crystals of mp20_bt, match rates near 72 % @1 and 86 % @20 of substitution, unrelaxed
(78 % and 84 % of the 80 whose formula is not in the training set). With --potential, energies are
computed, and with --relax-steps structures are relaxed; the true structures, too. The predictions
are in OUTPUT/METHOD.csv.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.baselines.base import Baseline
from crystaljax.baselines.random_search import RandomSearch
from crystaljax.baselines.substitution import Substitution
from crystaljax.data.dataset import load
from crystaljax.evaluation.attempt_energies import csp_energies
from crystaljax.evaluation.attempts import Attempts
from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
from crystaljax.evaluation.prediction_files import read_known
from crystaljax.evaluation.report import Report
from crystaljax.experiment.csp.questions import read_questions, write_predictions
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.reasons import in_words
from crystaljax.rewards.ehull import create_e_above_hull
from crystaljax.tracking import TrackingConfig

Method = Literal["substitution", "random"]


@dataclass(frozen=True)
class Config:
    """Predict structures without a model."""

    train: str
    """Training set: it gives the templates of substitution, and the formulas that are not new."""
    test: str
    """The test crystals."""
    methods: tuple[Method, ...] = ("substitution",)
    """Baselines."""
    n: int = 100
    """Number of test crystals, drawn by the seed. 0: all."""
    k: int = 20
    """Structures of each formula."""
    fixed_units: bool = True
    """The number of formula units in the primitive cell is given, as in most published numbers."""
    max_atoms: int = 0
    """Largest number of atoms in the primitive cells of random search. 0: that of the test
    crystals."""
    potential: str = "none"
    """Interatomic potential for energies and relaxation. none: no energies."""
    hull: str = "demonstration"
    """Convex hull, as in `crystaljax evaluate`."""
    relax_steps: int = 0
    """Largest number of relaxation steps. 0: no relaxation."""
    seed: int = 0
    """Random seed for the draws."""
    output: Path = Path("runs/csp_baselines")
    """Folder of predictions and report."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    with Experiment(config, config.output, config.tracking, "evaluation") as experiment:
        experiment.use("data", config.train)
        experiment.use("data", config.test)
        questions = read_questions(config.test, config.n, config.seed, config.fixed_units)
        truth, conditions, largest = questions
        train = read_known(config.train)
        energy = None
        if config.potential != "none":
            energy = create_e_above_hull(config.potential, config.hull, config.relax_steps)
        results, outputs, notes = {}, {}, []
        for name in config.methods:
            baseline = made(name, config.train, train.name, config.max_atoms or largest)
            proposals = baseline.propose(conditions, config.k, config.seed)
            lost = proposals.lost
            notes.append(
                f"{baseline.name}: {lost.total()} of {len(proposals.reasons)} attempts lost"
                f"{f' ({in_words(lost)})' if lost else ''}."
            )
            path = config.output / f"{name}.csv"
            write_predictions(path, proposals, truth, config.k)
            outputs[path] = "structures"
            target = np.repeat(np.arange(len(truth)), config.k)
            attempts = Attempts.of(proposals.crystals, target, proposals.reasons)
            energies = None
            if energy is not None:
                energies = csp_energies(energy, truth, attempts)
            at = tuple(sorted({1, config.k}))
            results[baseline.name] = evaluate_csp(
                truth, attempts, train, energies, CSPConfig(at=at)
            )
            results[baseline.name].write_tables(config.output, name)
        report = Report("Baselines of structure prediction", results, notes=notes)
        experiment.finish(report, outputs=outputs)


def made(name: Method, train: str, title: str, max_atoms: int) -> Baseline:
    """The baseline of a name; `title` of the training set, `max_atoms` of random search."""
    if name == "random":
        return RandomSearch(max_atoms)
    return Substitution(load(train, max_sites=None).crystals, title)


if __name__ == "__main__":
    run(main, Config, __doc__)
