"""Results of a study of RLIP, as far as there are any: seeds together, iteration by iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.evaluation.rates import Rate, pooled
from crystaljax.experiment.rlip.samples import Samples
from crystaljax.experiment.rlip.study import CURVE, SAMPLES_FILE, Arm, about
from crystaljax.experiment.rlip.variants import BASE, FLAGSHIP
from crystaljax.experiment.run_results import read_result
from crystaljax.reasons import in_words
from crystaljax.tracking import read_metrics
from crystaljax.training.iteration_files import Iteration, read_iterations

SUN = "S.U.N."

PHASE = "seconds/"
"""Metrics whose names begin so are times of phases, see `training.rollouts.Clock`."""


@dataclass(frozen=True)
class Line:
    """A model and a variant, over the seeds whose runs are finished."""

    arms: Sequence[Arm]
    label: str
    output: Path

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Results by seed."""
        found = [arm.result(self.output) for arm in self._finished]
        return [x for x in found if x is not None]

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self.arms[0].variant

    @property
    def model(self) -> Path:
        """The model that it starts from."""
        return self.arms[0].model

    @property
    def unfinished(self) -> list[str]:
        """Runs that are not finished, in words."""
        missing = [arm.name for arm in self.arms if arm not in self._finished]
        return [f"{name} is not finished." for name in missing]

    @cached_property
    def _finished(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.result(self.output) is not None]

    def rate(self, name: str) -> Rate | None:
        """A rate of fresh samples drawn freely; None if there is none."""
        return pooled((m for x in self.results for m in x["metrics"]), name)

    def groups(self, which: str, name: str) -> list[Rate]:
        """A rate of samples in each of the "groups" or "unseen_groups"; empty without any."""
        rows = [result[which].get(name, []) for result in self.results]
        found = [pooled(column, name) for column in zip(*rows, strict=True)]
        return [rate for rate in found if rate is not None]

    @property
    def seconds(self) -> float:
        """Of sampling a crystal, mean over the seeds."""
        return float(np.mean([x["seconds_per_sample"] for x in self.results]))

    def curve(self, name: str) -> dict[int, Rate]:
        """A rate after each iteration, by their number; the last one by the samples of `rate`."""
        by_iteration: dict[int, list[dict[str, Any]]] = {}
        for arm in self._finished:
            for path in sorted((arm.folder(self.output) / CURVE).glob("*.json")):
                by_iteration.setdefault(int(path.stem), []).extend(read_result(path)["metrics"])
        found = {number: pooled(metrics, name) for number, metrics in by_iteration.items()}
        found[len(self.iterations[0]) if self.iterations else 0] = self.rate(name)
        return {number: x for number, x in sorted(found.items()) if x is not None}

    @cached_property
    def iterations(self) -> list[list[Iteration]]:
        """The iterations of each seed's run; empty of the base."""
        if self.variant == BASE:
            return []
        return [read_iterations(arm.folder(self.output)) for arm in self._finished]

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase of learning, in all iterations, mean over the seeds; {} of the
        base."""
        if self.variant == BASE:
            return {}
        found: dict[str, float] = {}
        for arm in self._finished:
            for name, curve in read_metrics(arm.folder(self.output)).items():
                if name.startswith(PHASE):
                    of_seed = float(curve[:, 1].sum()) / len(self._finished)
                    found[name[len(PHASE) :]] = found.get(name[len(PHASE) :], 0.0) + of_seed
        return found

    @cached_property
    def samples(self) -> list[Samples]:
        """The fresh samples drawn freely, by seed."""
        return [Samples.load(arm.folder(self.output) / SAMPLES_FILE) for arm in self._finished]

    @cached_property
    def about(self) -> dict[str, Any]:
        """What all runs of the model share, see `study.about`."""
        return about(self.model, self.output)

    @property
    def origins(self) -> list[str]:
        """Where the rates come from: reward, samples, reference set, hull, tables, thresholds."""
        context = [x for result in self.results for x in result["context"]]
        return list(dict.fromkeys([*self.about["notes"], *context]))

    @property
    def judges(self) -> list[str]:
        """Suffixes of the names of rates by other judges than the first."""
        names = [m["name"] for x in self.results[:1] for m in x["metrics"]]
        return [name[len(SUN) :] for name in names if name.startswith(f"{SUN} (")]

    def lacks(self) -> Iterator[str]:
        """What iterations of each run had nothing of, and why samples could not be judged."""
        for arm, run in zip(self._finished, self.iterations, strict=False):  # none of the base
            said: dict[str, list[str]] = {}
            for x in run:
                for lack in x.lacks(tuple(np.unique(x.asked[x.asked > 0]).tolist())):
                    said.setdefault(lack, []).append(str(x.number + 1))
                if not len(x.lessons):
                    said.setdefault("nothing to learn from", []).append(str(x.number + 1))
            for lack, numbers in said.items():
                yield f"{arm.name}, iteration {', '.join(numbers)}: {lack}."
            if reasons := sum((x.unjudged for x in run), Counter[str]()):
                yield (
                    f"{arm.name}: {reasons.total()} of {sum(len(x.tier) for x in run)} samples"
                    f" could not be judged; most frequent reasons: {in_words(reasons)}."
                )


def lines_of(
    models: Sequence[Path], variants: Mapping[Path, Sequence[str]], seeds: Sequence[int], to: Path
) -> list[Line]:
    """A line of each model and variant; the labels of all but the first model name it."""
    found = []
    for model in models:
        for variant in variants[model]:
            arms = [Arm(model, variant, seed) for seed in seeds]
            label = arms[0].label
            if model != models[0]:
                label = model.name if variant == FLAGSHIP else f"{model.name}, {label}"
            found.append(Line(arms, label, to))
    return found


def over(part: Rate | None, whole: Rate | None, denominator: str) -> Rate | None:
    """The share of what one rate counts among what another one does; None if one is missing."""
    if part is None or whole is None:
        return None
    runs = tuple((n, of) for (n, _), (of, _) in zip(part.runs, whole.runs, strict=True))
    about = part.description, denominator, part.reference
    return Rate(part.name, part.count, whole.count, *about, runs)
