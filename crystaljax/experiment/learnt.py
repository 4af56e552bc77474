"""The end of learning by maximum likelihood: the model's folder, and a report with the losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crystaljax import plots
from crystaljax.evaluation.report import Report
from crystaljax.experiment.curves import first_and_last
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.run_folder import remade
from crystaljax.policies.base import Params, Policy
from crystaljax.tracking import read_metrics

if TYPE_CHECKING:
    from crystaljax.policies.text import TextPolicy


def finish_learning(
    experiment: Experiment,
    policy: Policy | TextPolicy,
    params: Params,
    report: Report,
    quantity: str,
) -> Path:
    """Write the model's folder, add the losses to the report, and end the experiment.

    quantity: the loss with its unit.

    Returns the model's folder.
    """
    model = experiment.folder / "model"
    with remade(model) as made:
        policy.save(made, params)
    metrics = read_metrics(experiment.folder)
    losses = {"training": metrics["train/nll"], "validation": metrics["validation/nll"]}
    figure = plots.training_curves(losses, quantity)
    experiment.finish(
        replace(
            report,
            pictures=experiment.pictures({"loss": (figure, "Loss")}),
            tables=[first_and_last(quantity, losses), *report.tables],
        ),
        outputs={model: "model"},
    )
    return model
