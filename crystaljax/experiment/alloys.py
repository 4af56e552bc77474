"""Parts of the experiment on alloys: one seed's data and policy, its runs and its samples.

Everything that is made is kept in the seed's folder and found again by a run that goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from crystaljax.alloys.baselines.optimize import SearchConfig, Searched, search
from crystaljax.alloys.baselines.space import Listed, Space
from crystaljax.alloys.composition import Candidate, candidate_pattern, read_candidate
from crystaljax.alloys.dataset import (
    PairsConfig,
    all_pairs,
    alloy_examples,
    alloy_fields,
    alloy_prompt_fields,
    candidates,
)
from crystaljax.alloys.evaluation.metrics import (
    AlloyEvaluation,
    AlloyEvaluationConfig,
    AlloyReference,
    evaluate_alloys,
)
from crystaljax.alloys.family import AlloyFamily
from crystaljax.alloys.journal import Journal, read_rewards, reward_entries
from crystaljax.alloys.known import known_alloys
from crystaljax.alloys.lists import PhaseLists, load_lists
from crystaljax.alloys.reward import AlloyReward
from crystaljax.experiment.experiment import Experiment, TrainingRun
from crystaljax.experiment.llm_setup import chats
from crystaljax.experiment.texts import Texts, plain, prompts, sequences
from crystaljax.policies.text import Params
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.grammar import from_regex
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.text.packing import TokenSequence
from crystaljax.text.prompts import PromptTemplate, load_template
from crystaljax.training.preference import ranked_pairs
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.sft import SftConfig, sft
from crystaljax.training.text_preference import TextPreferenceConfig, TokenPair, prefer_texts
from crystaljax.training.text_task import TextTask


@dataclass(frozen=True)
class DataConfig:
    """Data of supervised fine-tuning."""

    lists: str = "alcocrni"
    """Lists of compositions that are a single phase: shipped lists by name, or a JSON file of
    `curate_alloys.py`."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """Pairing of the phases."""
    template: str = ""
    """Prompt template: a shipped one, or a TOML file. Empty: that of the family."""
    tag_tokens: bool = True
    """Make each tag of the family one token of the model."""
    held: bool = True
    """Sample under the grammar of candidates. GRPO's samples are always free."""
    covered: Literal["held out", "space"] = "held out"
    """Reference for coverage: the candidates that are held out, or all pairs of the phases, as in
    the paper."""
    known: Path | None = None
    """File of known alloys, which do not count as novel either: a CSV with a column of formulas,
    such as the Materials Project's, or one formula a line."""
    metrics: AlloyEvaluationConfig = field(default_factory=AlloyEvaluationConfig)
    """Definitions of the metrics."""


@dataclass(frozen=True)
class BestConfig:
    """Pairs for DPO: the best samples, and worse ones."""

    n_samples: int = 1000
    """Number of samples of the model after supervised fine-tuning."""
    best: float = 0.25
    """Share of the best samples, which are preferred."""
    worst: float = 0.2
    """Share of the worst samples, which are rejected if their reward is lower. 1 (all) in the
    paper."""
    n_rejected: int = 10
    """Number of rejected samples for each preferred one; 100 in the paper."""
    by_rank: bool = False
    """If rewards are equal, prefer the earlier sample, as in the paper. Otherwise they form no
    pair."""


def data_reference(
    data: DataConfig,
    lists: PhaseLists,
    train: Sequence[Candidate],
    validation: Sequence[Candidate],
    reward: AlloyReward,
) -> AlloyReference:
    """The reference of evaluations on these data, which mixes phases as the reward does.

    Errors as `known.known_alloys` and `AlloyReference.of`.
    """
    covered = validation if data.covered == "held out" else all_pairs(lists.bcc, lists.b2)
    known = [] if data.known is None else known_alloys(data.known, lists.elements)
    settings = data.metrics, known, reward.family, reward.config.mix_by
    return AlloyReference.of(f"{data.lists}/train", train, covered, *settings)


def answer_template(name: str, family: AlloyFamily, candidate: Candidate) -> PromptTemplate:
    """A template of training prompts, the family's if no name is given; errors as `load_template`.

    ValueError if the family cannot read its answer for a candidate.
    """
    template = load_template(name or family.prompts.training)
    fields = alloy_prompt_fields(candidate.bcc) | alloy_fields(candidate)
    _, reason = read_candidate(template.example(fields).completion, tags=family.tags)
    if reason is not None:
        raise ValueError(
            f"answers of the prompt template {template.name!r} are no candidates of the family,"
            f" with {reason}: choose another one (data.template)"
        )
    return template


class Samples(NamedTuple):
    """Texts that should be candidates, and what they are worth."""

    texts: list[str]
    judged: RewardBatch
    tokens: list[np.ndarray]
    """int32 [n]: each as it was sampled, with the end token; none of texts that no model wrote."""

    def rows(self, rows: Sequence[int] | np.ndarray) -> Samples:
        """The samples of some rows, in this order."""
        rows = np.asarray(rows, int)
        tokens = [self.tokens[i] for i in rows] if self.tokens else []
        return Samples([self.texts[i] for i in rows], self.judged[rows], tokens)

    def first(self, n: int) -> Samples:
        """The first n."""
        return self.rows(np.arange(len(self.texts))[:n])

    def last(self, n: int) -> Samples:
        """The last n."""
        return self.rows(np.arange(len(self.texts))[-n:])

    def best(self, n: int) -> Samples:
        """The n of largest reward, or as many as could be judged; each text once."""
        known = {t: i for i, t in reversed([*enumerate(self.texts)]) if self.judged.ok[i]}
        ranked = sorted(known.values(), key=lambda i: (-self.judged.value[i], i))
        return self.rows(ranked[:n])

    def joined(self, other: Samples) -> Samples:
        """These and others."""
        judged = RewardBatch.concatenate([self.judged, other.judged])
        return Samples([*self.texts, *other.texts], judged, [*self.tokens, *other.tokens])


class Bench:
    """One seed's data and policy, in a folder of the experiment's.

    `reward` judges for all seeds. ValueError: its engine cannot judge candidates of these data.
    """

    def __init__(
        self,
        data: DataConfig,
        model: TextModelConfig,
        generation: GenerationConfig,
        experiment: Experiment,
        reward: AlloyReward,
        seed: int,
    ) -> None:
        self.reward, self.experiment, self.seed = reward, experiment, seed
        self.generation, self.name = generation, f"seed_{seed}"
        self.folder = experiment.folder / self.name
        lists = load_lists(data.lists)
        lists.check(reward)
        self.grid, self.elements = lists.grid, lists.elements
        self.listed = Listed(lists.bcc, lists.b2)
        train, validation = candidates(lists.bcc, lists.b2, replace(data.pairs, seed=seed))
        self.reference = data_reference(data, lists, train, validation, reward)
        template = answer_template(data.template, reward.family, train[0])
        chat = chats(model)
        self.train, self.validation = (
            Texts.given(alloy_examples(part, template, self.elements, chat=chat))
            for part in (train, validation)
        )
        texts = [*plain(self.train), *plain(self.validation)]
        tags = reward.family.tags.tokens if data.tag_tokens else ()
        added = tuple(dict.fromkeys((*tags, *model.added_tokens)))
        model = replace(model, seed=seed, added_tokens=added)
        self.policy = load_text_policy(model, texts)
        self.grammar = None
        if data.held:
            pattern = candidate_pattern(self.elements, reward.family.tags)
            size = self.policy.config.vocabulary
            self.grammar = from_regex(pattern, self.policy.tokenizer, size)
        # All ask the same.
        self.prompt = prompts(self.policy, self.train.take(np.arange(1)))[0]

    def sft(self, config: SftConfig) -> Params:
        """Learn the training candidates."""
        return self._sft("SFT", sequences(self.policy, self.train), config)

    def refined(self, name: str, start: Params, samples: Samples, config: SftConfig) -> Params:
        """Learn some samples, from `start`, in batches of them all if they are fewer than a batch.

        ValueError: there are none.
        """
        if not samples.texts:
            raise ValueError(f"{name}: no sample could be judged: draw more")
        return self._sft(name, self.sequences(samples), config.fitting(len(samples.texts)), start)

    def _sft(
        self,
        name: str,
        train: Sequence[TokenSequence],
        config: SftConfig,
        start: Params | None = None,
    ) -> Params:
        """Learn texts; validation is with the candidates that were held out."""
        with self._run(name, config) as run:
            state = sft(
                self.policy,
                train,
                sequences(self.policy, self.validation),
                replace(config, seed=self.seed),
                run.folder,
                run.log,
                start=start,
                run_id=run.run_id,
            )
        return state.averaged

    def dpo(
        self,
        name: str,
        start: Params,
        samples: Samples,
        best: BestConfig,
        config: TextPreferenceConfig,
    ) -> Params:
        """Learn which of some samples are the better ones, from `start`, which is the reference."""
        rng = np.random.default_rng(self.seed)
        values = samples.judged.value
        shares = best.best, best.worst, best.n_rejected
        rows = ranked_pairs(values, *shares, rng, by_rank=best.by_rank)
        if not len(rows):
            failures = samples.judged.failures()
            why = "".join(f"; {n} of {len(samples.texts)}: {w}" for w, n in failures.items())
            raise ValueError(
                f"all samples have the same reward: sample more, or at a higher temperature{why}"
            )
        texts = self.sequences(samples)
        pairs = [TokenPair(texts[a], texts[b]) for a, b in rng.permutation(rows)]
        n_validation = max(1, len(pairs) // 20)
        with self._run(name, config) as run:
            state = prefer_texts(
                self.policy,
                pairs[n_validation:],
                pairs[:n_validation],
                replace(config, seed=self.seed),
                run.folder,
                run.log,
                start=start,
                run_id=run.run_id,
            )
        return state.averaged

    def staged(
        self,
        name: str,
        start: Params,
        samples: Samples,
        best: BestConfig,
        stages: Sequence[TextPreferenceConfig],
    ) -> Params:
        """DPO in stages on the same samples, each with the last one's model as the reference."""
        params = start
        for number, stage in enumerate(stages):
            label = name if len(stages) == 1 else f"{name}/{number}"
            params = self.dpo(label, params, samples, best, stage)
        return params

    def grpo(
        self, name: str, start: Params, config: ReinforceConfig, bounds: RewardBounds
    ) -> Params:
        """Learn by trial, from `start`, which is the base that divergence is measured from."""
        task = TextTask(self.policy, [self.prompt], self.reward, self.generation, bounds)
        with self._run(name, config) as run:
            config = replace(config, seed=self.seed)
            return reinforce(task, start, config, run.folder, run.log, run_id=run.run_id)

    def samples(
        self, name: str, params: Params, n: int, stream: int, generation: GenerationConfig
    ) -> Samples:
        """n fresh samples, judged; those of different streams are independent."""
        path = self.folder / f"{name}.jsonl"
        header: dict[str, Any] = {"samples": n, "seed": self.seed, "stream": stream}
        header["reward"] = self.reward.identity
        how = {"generation": dataclasses.asdict(generation), "held": bool(self.grammar)}
        journal = Journal(path, header | how)
        if len(journal.entries) < n:
            seed = 1_000_001 + 1000 * self.seed + stream
            ask = [self.prompt.tokens]
            drawn = self.policy.sample(params, ask, seed, generation, n, self.grammar)
            rows = range(len(journal.entries), n)
            texts = [drawn.text[i] for i in rows]
            entries = reward_entries(texts, self.reward.judge_texts(texts))
            tokens = [{"tokens": drawn.sequence(i).tolist()} for i in rows]
            journal.add(a | b for a, b in zip(entries, tokens, strict=True))
        kept = [np.array(entry["tokens"], np.int32) for entry in journal.entries]
        return Samples(*read_rewards(journal.entries), kept)

    def searched(
        self,
        config: SearchConfig,
        name: str = "",
        start: Samples | None = None,
        listed: bool = False,
    ) -> Samples:
        """Candidates that a search without a model looks through, in order.

        `name`: of its journal, the method's if not given; `start`: what it knows before it begins;
        `listed`: whether it is held to the phases of the training data.
        """
        path = self.folder / f"{name or config.method}.jsonl"
        config = replace(config, journal=path, seed=self.seed)
        space = Space(self.grid, listed=self.listed if listed else None)
        judge = self.reward.judge_texts
        reward = self.reward
        given = None if start is None else Searched(start.texts, start.judged)
        found = search(space, judge, config, reward.identity, reward.family.tags, given)
        return Samples(*found, [])

    def evaluation(self, samples: Samples) -> AlloyEvaluation:
        """Evaluation of samples."""
        return evaluate_alloys(samples.texts, samples.judged, self.reference)

    def sequences(self, samples: Samples) -> list[TokenSequence]:
        """Samples of a model as answers to the prompt."""
        prompt = self.prompt.tokens
        return [TokenSequence(np.concatenate([prompt, x]), len(prompt)) for x in samples.tokens]

    def _run(self, name: str, config: Any) -> AbstractContextManager[TrainingRun]:
        """A run of this seed; of W&B's kind of its name."""
        return self.experiment.run(f"{self.name}/{name}", name, config)


class Run(NamedTuple):
    """One seed."""

    bench: Bench
    params: Mapping[str, Params]
    """Label -> a model's trained parameters."""
    samples: Mapping[str, Samples]
    """Label -> samples of a model, or candidates of a search."""
