"""A contest of ways to find alloys at the same number of equilibria: models, searches and both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.alloys.baselines.optimize import Method, SearchConfig
from crystaljax.alloys.composition import read_candidate
from crystaljax.alloys.evaluation.table_one import TableOne, plus_minus
from crystaljax.alloys.family import AlloyFamily
from crystaljax.alloys.journal import Journal
from crystaljax.alloys.lists import PhaseLists
from crystaljax.evaluation.rates import Measure
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.alloys import Bench, BestConfig, Samples
from crystaljax.experiment.experiment import Experiment
from crystaljax.policies.text import Params
from crystaljax.ranges import POSITIVE, POSITIVE_SHARE, at_least, check
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.text.generation import GenerationConfig
from crystaljax.training.reinforce import ReinforceConfig
from crystaljax.training.sft import SftConfig
from crystaljax.training.text_preference import TextPreferenceConfig

BEST = 20
"""Candidates among which distinct systems are counted."""

SEARCHES: Mapping[str, tuple[Method, bool]] = {
    "random": ("random", False),
    "TPE": ("tpe", False),
    "NSGA-II": ("nsga2", False),
    "CMA-ES": ("cma", False),
    "random, of the lists": ("random", True),
    "TPE, of the lists": ("tpe", True),
}
"""Searches without a model, by their names in the table: methods, and whether they are held to the
curated phases that models learn from."""


@dataclass(frozen=True)
class ContestConfig:
    """Settings of the contest. ValueError for numbers out of range."""

    calls: int = 0
    """Candidates that each method has judged, a multiple of four: the last quarter are what it
    proposes when it has learnt from the others, and these are compared. No contest if 0."""
    best_of: int = 4
    """Samples of SFT of which the best one is proposed."""
    rounds: int = 3
    """Rounds of iterated SFT, on the best samples so far ..."""
    kept: float = 0.25
    """... of all this share."""
    betas: tuple[float, ...] = (2.0, 0.5)
    """β of the stages of another DPO, each with the last one's model as the reference: a schedule
    of what divergence costs (arXiv 2404.09656)."""
    again: SftConfig = field(default_factory=SftConfig)
    """Their training, from the model after SFT."""

    def __post_init__(self) -> None:
        check(self, betas=POSITIVE)
        check(self, calls=at_least(0), best_of=at_least(1), rounds=at_least(1), kept=POSITIVE_SHARE)
        if self.calls % 4:
            raise ValueError(f"calls must be a multiple of four, not {self.calls}")
        if self.calls and 3 * self.calls // 4 < self.rounds:
            raise ValueError(f"{self.calls} calls are too few for {self.rounds} rounds")


@dataclass(frozen=True)
class Teaching:
    """Training of the models of a contest."""

    sft: SftConfig
    """Supervised fine-tuning."""
    best: BestConfig
    """Pairs for DPO."""
    dpo: Mapping[str, TextPreferenceConfig]
    """Label -> DPO in one stage; the first one is also that in stages."""
    grpo: ReinforceConfig
    """GRPO; its steps are as many as there are calls for."""
    bounds: RewardBounds
    """Rewards of GRPO."""

    def grpo_steps(self, calls: int) -> int:
        """Steps of GRPO that judge so many candidates. ValueError: none do."""
        steps, rest = divmod(calls, self.grpo.batch_size)
        if rest or not steps:
            raise ValueError(
                f"GRPO learns from {calls} candidates, which are no multiple of its batch of"
                f" {self.grpo.batch_size}: give grpo.batch-size and grpo.group-size"
            )
        return steps


class Entrant(NamedTuple):
    """A method of one seed."""

    proposed: Samples
    """Candidates that are compared."""
    n_judged: int
    """Candidates that it had judged, these included."""
    seconds: float
    """Wall-clock time of its own work, without what it shares with SFT; nan if it was stopped."""


def compete(
    bench: Bench,
    config: ContestConfig,
    teaching: Teaching,
    search: SearchConfig,
    decoding: GenerationConfig,
) -> dict[str, Entrant]:
    """All methods of one seed, by their names; what a run did before is not done again.

    Models learn from samples of `bench.generation` and propose by `decoding`. Models that learn
    from SFT's samples have the same ones. ValueError: GRPO's batches do not fit.
    """
    n, last = config.calls, config.calls // 4
    steps = teaching.grpo_steps(n - last)
    clock = _Clock(bench.folder / "seconds.jsonl")
    found: dict[str, Entrant] = {}

    def enter(label: str, proposed: Samples) -> None:
        found[label] = Entrant(proposed, n, clock.seconds[label])

    for label, (method, listed) in SEARCHES.items():
        with clock(label):
            name = f"{method}_listed" if listed else method
            one = replace(search, method=method, calls=n)
            searched = bench.searched(one, name, listed=listed)
        enter(label, searched.last(last))
    with clock("SFT"):
        sft = bench.sft(teaching.sft)
        learnt = bench.samples("SFT/pool", sft, n - last, 0, bench.generation)
        proposed = bench.samples("SFT/samples", sft, last, 1, decoding)
    enter("SFT", proposed)
    with clock(label := f"best of {config.best_of}"):
        chosen = best_of(learnt.joined(proposed), config.best_of)
    enter(label, chosen)
    with clock("iterated SFT"):
        proposed = iterated(bench, config, sft, learnt, decoding)
    enter("iterated SFT", proposed)
    streams = iter(range(2, 1000))
    first = next(iter(teaching.dpo.values()))
    staged = [replace(first, beta=beta) for beta in config.betas]
    taught = {label: [one] for label, one in teaching.dpo.items()} | {"DPO in stages": staged}
    for label, stages in taught.items():
        with clock(label):
            params = bench.staged(label, sft, learnt, teaching.best, stages)
            proposed = bench.samples(f"{label}/samples", params, last, next(streams), decoding)
        enter(label, proposed)
    with clock("GRPO"):
        grpo = replace(teaching.grpo, n_steps=steps)
        params = bench.grpo("GRPO", sft, grpo, teaching.bounds)
        proposed = bench.samples("GRPO/samples", params, last, next(streams), decoding)
    enter("GRPO", proposed)
    with clock(label := "SFT + TPE"):
        start = learnt.first(n // 2)
        tpe = replace(search, method="tpe", calls=n - n // 2)
        searched = bench.searched(tpe, "sft_tpe", start)
    enter(label, searched.last(last))
    return found


def best_of(samples: Samples, n: int) -> Samples:
    """The best of each n samples, in order; of a last group that is not whole, too."""
    values = np.where(samples.judged.ok, samples.judged.value, -np.inf)
    starts = range(0, len(values), n)
    return samples.rows([start + int(values[start : start + n].argmax()) for start in starts])


def iterated(
    bench: Bench,
    config: ContestConfig,
    sft: Params,
    pool: Samples,
    decoding: GenerationConfig,
) -> Samples:
    """Proposals after rounds of SFT on the best samples so far (arXiv 2308.08998).

    The first round learns from the pool's first samples, the others from the last round's, too; all
    of them together are as many as the pool.
    """
    sizes = [len(part) for part in np.array_split(np.arange(len(pool.texts)), config.rounds)]
    seen = pool.first(sizes[0])

    def drawn(number: int, n: int, generation: GenerationConfig) -> Samples:
        name = f"iterated SFT/{number}"
        best = seen.best(max(1, round(config.kept * len(seen.texts))))
        params = bench.refined(name, sft, best, config.again)
        return bench.samples(f"{name}/samples", params, n, 100 + number, generation)

    for number, size in enumerate(sizes[1:], 1):
        seen = seen.joined(drawn(number, size, bench.generation))
    return drawn(config.rounds, config.calls // 4, decoding)


class _Clock:
    """Seconds of methods, kept in a file; a method that was stopped has none."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path, {"seconds": "of each method"})
        self.seconds: dict[str, float] = {
            entry["method"]: entry["seconds"] or np.nan for entry in self._journal.entries
        }

    @contextmanager
    def __call__(self, method: str) -> Iterator[None]:
        """Measure one, unless it was."""
        begun = f"{method} begun"
        if method in self.seconds:
            yield
            return
        whole = begun not in self.seconds
        if whole:
            self._journal.add([{"method": begun, "seconds": None}])
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start if whole else None
        self._journal.add([{"method": method, "seconds": taken}])
        self.seconds[method] = np.nan if taken is None else taken


def n_systems(samples: Samples, family: AlloyFamily, n: int = BEST) -> int:
    """Distinct pairs of sets of elements, of matrix and precipitate, among the n best candidates.

    Each candidate's text counts once.
    """
    rows = samples.best(n)
    found = (read_candidate(text, tags=family.tags)[0] for text in rows.texts)
    return len({(frozenset(one.bcc), frozenset(one.b2)) for one in found if one is not None})


def measures(entrants: Sequence[Entrant], family: AlloyFamily) -> dict[str, Measure]:
    """Metrics by which methods are compared, as means over seeds with standard errors."""
    columns: dict[str, list[float]] = {}
    for proposed, n_judged, seconds in entrants:
        judged, n = proposed.judged, len(proposed.texts)
        kept = [np.nan_to_num(judged.info[name]) > 0 for name in family.rules]
        of_seed = {
            "mean reward": float(judged.value.mean()),
            "best reward": float(judged.value[judged.ok].max(initial=-np.inf)),
            "all rules (%)": 100 * float(np.logical_and.reduce(kept).mean()),
            f"systems of the best {BEST}": n_systems(proposed, family),
            "distinct (%)": 100 * len(set(proposed.texts)) / max(n, 1),
            "judged": n_judged,
            "seconds": seconds,
        }
        for name, value in of_seed.items():
            columns.setdefault(name, []).append(value)
    return {
        name: Measure.mean(name, np.array(values, float), "", name, denominator="seeds")
        for name, values in columns.items()
    }


def curation_note(lists: PhaseLists) -> str:
    """What the models' training data cost, which is not counted in the contest."""
    tried = lists.provenance.get("tried", {})
    cost = f"{sum(tried.values())} compositions" if tried else "an unknown number of compositions"
    return (
        "The number of equilibria leaves out the curation of the training data. SFT and all that"
        f" starts from it learn from {len(lists.bcc)} matrices and {len(lists.b2)} precipitates,"
        f" for which {cost} had been tried at up to {len(lists.temperatures)} temperatures each;"
        " of the searches without a model, those of the lists choose among the same phases, and the"
        " others begin with none of it."
    )


def finish_contest(
    experiment: Experiment,
    family: AlloyFamily,
    seeds: Mapping[int, Mapping[str, Entrant]],
    remarks: Sequence[str] = (),
) -> Path:
    """Report the contest of all seeds; returns the page's path. Its table is contest.csv, too.

    `remarks`: further notes, such as what was spent on the data and the limits of the rewards.
    """
    labels = list(next(iter(seeds.values())))
    found = {
        label: measures([of_seed[label] for of_seed in seeds.values()], family) for label in labels
    }
    names = list(found[labels[0]])
    caption = f"What each method proposes after the same number of equilibria, {len(seeds)} seeds"
    TableOne(caption, found).write(experiment.folder, "contest")
    rows = [["", *names]]
    rows += [[label, *(plus_minus(found[label][name]) for name in names)] for label in labels]
    notes = [
        "Compared is the last quarter of what each method had judged; in the time a method is"
        " charged for nothing that it shares with SFT, nor for equilibria that were known.",
        *remarks,
    ]
    for name in names[:4]:
        values = {label: found[label][name].value for label in labels}
        known = [label for label in labels if isfinite(values[label])]
        ranked = sorted(known, key=lambda label: -values[label])
        best = ", ".join(f"{label} {values[label]:.4g}" for label in ranked[:3])
        notes.append(f"The first by {name}: {best or 'none is known'}.")
    tracker = experiment.main.tracker
    for label, of_label in found.items():
        tracker.summarize({f"{label}/{name}": one.value for name, one in of_label.items()})
    title = f"Search and learning of {family.tags.matrix} and {family.tags.precipitate} alloys"
    return experiment.finish(Report(title, {}, [], [Table(caption, rows)], notes))
