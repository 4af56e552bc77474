"""Results of single runs of a study, kept as JSON beside what the runs made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystaljax.data.files import replacing
from crystaljax.evaluation.policies import Drawn
from crystaljax.evaluation.rates import MetricSet

RESULT_FILE = "result.json"

N_REASONS = 5
"""Commonest reasons why samples are no crystals that are kept."""


def read_result(path: Path) -> dict[str, Any]:
    """ValueError if the file is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the run is done again"
        ) from error
    return found


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all; ValueError for numbers that are not finite."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def result_of_samples(drawn: Drawn, evaluation: MetricSet) -> dict[str, Any]:
    """What is kept of fresh samples and their evaluation."""
    return {
        "metrics": [metric.to_dict() for metric in evaluation.metrics],
        "context": list(evaluation.context),
        "n": len(drawn.crystals),
        "seconds_per_sample": drawn.seconds,
        "cpu_seconds_per_sample": drawn.cpu_seconds,
        "reasons": dict(drawn.reasons.most_common(N_REASONS)),
    }
