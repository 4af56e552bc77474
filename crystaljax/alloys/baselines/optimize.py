"""Search for good candidates without a model: at random, Bayesian or evolutionary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from crystaljax.alloys.baselines.encoding import candidate_at, distributions, parameters_of
from crystaljax.alloys.baselines.evolution import Evolution
from crystaljax.alloys.baselines.proposals import Proposal, Proposer, RandomProposer
from crystaljax.alloys.baselines.space import Space
from crystaljax.alloys.composition import TAGS, Tags, read_candidate, write_candidate
from crystaljax.alloys.journal import Entry, Journal, read_rewards, reward_entries
from crystaljax.rewards.base import RewardBatch

Judge = Callable[[Sequence[str]], RewardBatch]
"""From B texts of candidates to their rewards, as `AlloyReward.judge_texts`."""

Method = Literal["random", "tpe", "nsga2", "cma"]

_PATIENCE = 4  # proposals for each candidate of a batch, before others are drawn at random


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search."""

    method: Method = "tpe"
    """random: draws from the grid (A.1.1 of arXiv 2511.12036); tpe: Bayesian, by tree-structured
    Parzen estimators; nsga2: evolutionary; cma: CMA-ES on the shares of elements (`evolution`).
    tpe and nsga2 are optuna's."""
    calls: int = 1000
    """Number of different candidates to judge, the same for all methods."""
    batch: int = 32
    """Number of candidates that are proposed, then judged, at a time."""
    population: int = 64
    """Number of candidates in a generation of nsga2 or cma."""
    journal: Path | None = None
    """JSONL file of all judged candidates. A search that was stopped is continued from it."""
    seed: int = 0
    """Random seed for the proposals."""


class Searched(NamedTuple):
    """Candidates in the order in which they were judged."""

    texts: list[str]
    rewards: RewardBatch


def search(
    space: Space,
    judge: Judge,
    config: SearchConfig = SearchConfig(),
    identity: str = "",
    tags: Tags = TAGS,
    start: Searched | None = None,
) -> Searched:
    """Judge `config.calls` different candidates of a space, fewer if it has no more.

    No candidate is judged twice. `identity`: identifies the judge's rewards, as
    `AlloyReward.identity` does. `start`: candidates with known rewards for tpe and nsga2 to begin
    with, such as a model's samples; those outside the space are ignored. ImportError without optuna
    or cmaes, ValueError for the journal of another search or judge.
    """
    if config.calls < 1 or config.batch < 1:
        raise ValueError(f"calls and batch must be at least 1, not {config.calls}, {config.batch}")
    header = _header(space, config) | {"reward": identity}
    if start is not None:
        header["start"] = sha256("\n".join(start.texts).encode()).hexdigest()
    journal = Journal(config.journal, header)
    proposer = _proposer(space, config, tags)
    given = [] if start is None else _given(space, start, tags)
    proposer.learn(given)
    proposer.learn(journal.entries)
    known = {entry["text"] for entry in (*given, *journal.entries)}
    while len(journal.entries) < config.calls:
        wanted = min(config.batch, config.calls - len(journal.entries))
        proposals = proposer.propose(wanted, known)
        if not proposals:
            break
        texts = [proposal.text for proposal in proposals]
        entries = reward_entries(texts, judge(texts))
        for entry, proposal in zip(entries, proposals, strict=True):
            entry["note"] = proposal.note
        journal.add(entries)
        proposer.learn(entries)
        known.update(texts)
    return Searched(*read_rewards(journal.entries[: config.calls]))


def _header(space: Space, config: SearchConfig) -> dict[str, Any]:
    """Settings that identify a journal; a search may go on for more calls."""
    names = ("method", "batch", "population", "seed")
    searched = asdict(space)
    for name, default in (("levels", ()), ("site_ratio", 1)):
        if searched["grid"][name] == default:  # omitted if unset, as in older journals
            del searched["grid"][name]
    if space.listed is None:
        del searched["listed"]
    return {"search": {name: getattr(config, name) for name in names}, "space": searched}


def _given(space: Space, start: Searched, tags: Tags) -> list[Entry]:
    """Journal lines of candidates that were judged before, in the form of optuna's proposals."""
    found = []
    for entry in reward_entries(*start):
        candidate, _ = read_candidate(entry["text"], tags=tags)
        params = None if candidate is None else parameters_of(space, candidate)
        if params is not None and entry["ok"]:
            found.append(entry | {"note": {"params": params, "attributes": {}}})
    return found


def _proposer(space: Space, config: SearchConfig, tags: Tags) -> Proposer:
    if config.method == "random":
        return RandomProposer(space, config.seed, tags)
    if config.method == "cma":
        return Evolution(space, config.population, config.seed, tags)
    return Study(space, config, tags)


class Study:
    """Proposes candidates by a sampler of optuna.

    Its parameters are slots, each with an element and an amount. Amounts of one element are added
    up, and the closest shares on the grid are used.
    """

    def __init__(self, space: Space, config: SearchConfig, tags: Tags = TAGS) -> None:
        """ImportError without optuna."""
        self._optuna = optuna_module()
        self._tags = tags
        self._space = space
        self._config = config
        self._parameters = distributions(space, self._optuna.distributions)
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._study = self._optuna.create_study(direction="maximize")

    def propose(self, n: int, known: set[str]) -> list[Proposal]:
        """See `Proposer`; if the sampler proposes too few new candidates, random ones are added."""
        found: dict[str, Any] = {}
        failed = self._optuna.trial.TrialState.FAIL
        seed = int(np.random.default_rng([self._config.seed, len(known)]).integers(2**31))
        for sampler, patience in (
            (self._sampler(seed), _PATIENCE * n),
            (self._optuna.samplers.RandomSampler(seed), _PATIENCE * 20 * n),
        ):
            self._study.sampler = sampler
            for _ in range(patience):
                if len(found) == n:
                    break
                trial = self._study.ask(self._parameters)
                candidate = candidate_at(self._space, trial.params)
                text = "" if candidate is None else write_candidate(candidate, self._tags)
                if not text or text in known or text in found:
                    self._study.tell(trial, state=failed)
                else:
                    found[text] = trial
        proposals = []
        for text, trial in found.items():  # `learn` gets them with their rewards
            told = self._study.tell(trial, state=failed)
            note = {"params": told.params, "attributes": told.system_attrs}
            proposals.append(Proposal(text, note))
        return proposals

    def learn(self, entries: Sequence[Entry]) -> None:
        """Record rewards; those that are not finite, and accidental failures, are ignored."""
        for entry in entries:
            if entry["value"] is not None and not entry["transient"]:
                self._study.add_trial(
                    self._optuna.trial.create_trial(
                        params=entry["note"]["params"],
                        distributions=self._parameters,
                        value=entry["value"],
                        system_attrs=entry["note"]["attributes"],
                    )
                )

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        if self._config.method == "nsga2":
            return samplers.NSGAIISampler(population_size=self._config.population, seed=seed)
        with warnings.catch_warnings():  # experimental options of optuna
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)


def optuna_module() -> Any:
    """The package optuna; ImportError saying how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError('optuna is not installed: run pip install "crystaljax[alloy]"') from error
    return optuna
