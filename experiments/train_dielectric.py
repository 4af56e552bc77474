"""Train a dielectric model on DFPT constants, and compare it with simpler ones.

    python experiments/train_dielectric.py --data mp_dielectric.csv.gz

The data: 1,056 crystals of Petousis et al., Sci. Data 4, 160134 (2017), a table with the columns
poscar, poly_electronic and poly_total. Four minutes on one core, 0.7 GB. Expect mean absolute
errors of ε and of log ε, in five-fold cross-validation over formulas, near 1.96 and 0.162, against
2.3 and 0.21 of ridge regression on the same features, 2.5 and 0.22 on the composition, and 4.1
and 0.52 of the median. The model is in OUTPUT, for `create("figure_of_merit", dielectric=OUTPUT)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crystaljax.composition import N_SPECIES, formula
from crystaljax.data.readers import read
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.rewards.properties.dielectric import features, save, to_constant, train
from crystaljax.rewards.properties.gaussian_process import predict
from crystaljax.rewards.properties.pretrained import Description, band_gap
from crystaljax.tracking import TrackingConfig

Fit = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""From the rows trained on to a function from rows to values of log(ε − 1)."""


@dataclass(frozen=True)
class Config:
    """Train a dielectric model."""

    data: Path
    """Crystals with the columns poly_electronic and poly_total."""
    megnet: Path | None = None
    """Folder of the band-gap MEGNet (default: downloaded)."""
    quantity: Literal["electronic", "total"] = "electronic"
    """The electronic dielectric constant, or the total (static) one, which includes the ionic
    part."""
    n_folds: int = 5
    """Parts of the cross-validation; crystals of one formula are in one part."""
    seed: int = 0
    """Random seed for the parts of the cross-validation."""
    output: Path = Path("runs/dielectric")
    """Folder of the model."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    with Experiment(config, config.output, config.tracking, "training") as experiment:
        experiment.use("data", config.data)
        experiment.use("megnet", config.megnet)
        summary = trained(config)
        errors = summary["errors"]
        columns = list(next(iter(errors.values())))
        rows = [[name, *(f"{x:g}" for x in found.values())] for name, found in errors.items()]
        caption = f"Errors of the {config.quantity} dielectric constant, {config.n_folds} folds"
        report = Report(
            "A model of dielectric constants",
            {},
            tables=[Table(caption, [["model", *columns], *rows])],
            notes=[f"{summary['n_crystals']} crystals, all of which the saved model has learnt."],
        )
        experiment.finish(report, outputs={config.output / "process.npz": "model"})


def trained(config: Config) -> dict[str, Any]:
    """Cross-validate, train on all crystals and save; returns what cross_validation.json has."""
    records = [record for record in read(config.data) if record.cell is not None]
    described = band_gap(config.megnet).describe([r.cell for r in records if r.cell])
    taken = np.flatnonzero([reason is None for reason in described.reasons])
    described, records = rows_of(described, taken), [records[row] for row in taken]
    constant = np.array([float(r.properties[f"poly_{config.quantity}"]) for r in records])
    counts = np.stack([np.bincount(r.cell.species, minlength=N_SPECIES) for r in records if r.cell])

    folds = formula_folds(counts, config.n_folds, config.seed)
    fraction = counts / counts.sum(axis=1, keepdims=True)
    composition = np.column_stack([np.sqrt(fraction), np.log(described.volume)])
    target = np.log(constant - 1)
    models: dict[str, Fit] = {
        "median": lambda rows: lambda test: np.full(len(test), np.median(target[rows])),
        "ridge, composition": lambda rows: ridge(composition, target, rows),
        "ridge, MEGNet": lambda rows: ridge(features(described), target, rows),
        "Gaussian process, MEGNet": lambda rows: gaussian_process(described, constant, rows),
    }
    results = {name: cross_validate(model, constant, folds) for name, model in models.items()}
    save(config.output, train(described, constant))
    summary = {"quantity": config.quantity, "n_crystals": len(records), "errors": results}
    (config.output / "cross_validation.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def formula_folds(counts: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """A part int [N] for each crystal, the same for crystals of the same formula."""
    _, number = np.unique([formula(row) for row in counts], return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(number.max() + 1)
    return shuffled[number] % n_folds


def cross_validate(model: Fit, constant: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Errors of dielectric constants [N] that were predicted by a model that did not see them."""
    predicted = np.zeros(len(constant))
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        predicted[test] = to_constant(model(np.flatnonzero(folds != fold))(test))
    error = np.abs(predicted - constant)
    return {
        "MAE": round(float(error.mean()), 3),
        "median error": round(float(np.median(error)), 3),
        "MAE of log": round(float(np.abs(np.log(predicted / constant)).mean()), 4),
    }


def ridge(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on the rows, its strength by the leave-one-out error (in closed form)."""
    shift, scale = x[rows].mean(0), np.maximum(x[rows].std(0), 1e-6)
    z, mean = (x - shift) / scale, y[rows].mean()
    left, singular, right = np.linalg.svd(z[rows], full_matrices=False)
    centred = y[rows] - mean

    def error(strength: float) -> float:
        shrink = singular**2 / (singular**2 + strength)
        leverage = (left**2 * shrink).sum(1) + 1 / len(rows)
        return float((((centred - left * shrink @ (left.T @ centred)) / (1 - leverage)) ** 2).sum())

    strength = min(np.logspace(-1, 4, 21), key=error)
    weights = right.T @ (singular / (singular**2 + strength) * (left.T @ centred))
    return lambda test: z[test] @ weights + mean


def gaussian_process(
    described: Description, constant: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The model that is saved in the end, trained on the rows."""
    process = train(rows_of(described, rows), constant[rows])
    return lambda test: predict(process, features(rows_of(described, test)))[0]


def rows_of(described: Description, rows: np.ndarray) -> Description:
    """Some of the described crystals."""
    return Description(
        described.descriptor[rows],
        described.volume[rows],
        described.value[rows],
        [described.reasons[row] for row in rows],
    )


if __name__ == "__main__":
    run(main, Config)
