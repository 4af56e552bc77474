"""Superalloys proposed by a model behind an OpenAI-compatible endpoint, judged by CALPHAD.

    export OPENAI_API_KEY=...
    python experiments/alloy_endpoint.py --endpoint.model NAME [--endpoint.base-url URL]

The model is asked with no, one and several examples, and in a dialogue with an evaluator that reads
what CALPHAD found. As in arXiv 2511.12036: --plain asks without stating the rules, --samples with
--ranked 10 shows the ten best and worst samples of a model that `alloys.py` taught, --known lists
known phases, --reviewed 1000 runs the loop of a generator and an evaluator that accepts or rejects
(A.1.4), --tune asks a prompt that DSPy's MIPROv2 has tuned for diversity, with identifiers (A.1.3).

Every answer is written to disk at once: run the same command again to go on after an interruption.
--endpoint.max-requests and --endpoint.max-total-tokens bound the cost of each way of asking (not of
tuning). The table is in OUTPUT, beside the published one; coverage and novelty as in the paper need
--data.covered space and --data.known FILE. Models that `alloys.py` trained get into one table with
these by `alloy_score.py --files`, from their journals.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np

from crystaljax.alloys.baselines.dialogue import Ask, DialogueConfig, dialogue
from crystaljax.alloys.baselines.endpoint import Endpoint, EndpointConfig, Messages
from crystaljax.alloys.baselines.review import (
    Evaluator,
    ModelEvaluator,
    ReviewConfig,
    RuleEvaluator,
    review,
)
from crystaljax.alloys.baselines.shots import (
    KnownPhases,
    ShotsConfig,
    final_answer,
    ranked_prompts,
    read_samples,
    shot_prompts,
    with_uuid,
)
from crystaljax.alloys.baselines.tuning import TuningConfig, tuned_prompt
from crystaljax.alloys.composition import Candidate, write_candidate
from crystaljax.alloys.dataset import candidates
from crystaljax.alloys.evaluation.metrics import AlloyEvaluation, AlloyReference, evaluate_alloys
from crystaljax.alloys.evaluation.published import published
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.known import formulas
from crystaljax.alloys.lists import PhaseLists, load_lists
from crystaljax.alloys.reward import AlloyConfig, AlloyReward
from crystaljax.data.files import replacing
from crystaljax.evaluation.report import Report
from crystaljax.experiment.alloys import DataConfig, data_reference
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.experiment.main import run
from crystaljax.rewards.pool import PoolConfig
from crystaljax.tracking import TrackingConfig

HOW_TO_ASK = (
    *("base_url", "key_variable", "limit_name", "at_once", "timeout", "retries"),
    *("most_failures", "max_requests", "max_total_tokens"),
)
"""Settings of endpoints that may change when a run is continued."""


N_TUNING = 100
"""Number of training candidates that prompts are tuned with."""

N_RANKED = 10
"""Number of good examples in the loop's prompts; there are as many bad ones."""


@dataclass(frozen=True)
class Config:
    """Ask a model for alloys, judge its answers, and compare ways of asking."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """The model that proposes; it is also the evaluator, if --evaluator is not given."""
    evaluator: EndpointConfig | None = None
    """The evaluator, which says in a dialogue what to change."""
    model: str = ""
    """Folder or name of a language model that runs here and proposes instead of the endpoint, with
    the endpoint's temperature and length of answers. It is also the evaluator, if --evaluator is
    not given. Needs the extra llm."""
    shots: tuple[int, ...] = (0, 1, 5)
    """Numbers of examples in a prompt. Each number is one way of asking."""
    n_prompts: int = 100
    """Prompts of each way of asking."""
    n_dialogues: int = 20
    """Number of dialogues. 0: none."""
    revisions: int = 3
    """Rounds of a dialogue after the first one."""
    samples: Path | None = None
    """Journal of a model's samples with their rewards, such as SFT/pool.jsonl of `alloys.py`.
    Ranked examples are taken from it."""
    ranked: tuple[int, ...] = ()
    """Numbers of good examples in a prompt, with as many bad ones. Each number is one way of
    asking; 10 in the paper. Needs --samples."""
    plain: bool = False
    """Do not state the rules in prompts, as in the paper."""
    known: bool = False
    """List the known phases in prompts."""
    identify: bool = False
    """Put a random identifier at the end of each prompt."""
    reviewed: int = 0
    """Candidates that the loop of generator and evaluator accepts before it ends. 0: no loop."""
    review: ReviewConfig = field(default_factory=ReviewConfig)
    """Settings of the loop of generator and evaluator."""
    reviewer: Literal["model", "calphad"] = "model"
    """Evaluator in this loop: a model, as in the paper, or the rules."""
    tune: bool = False
    """Also ask with a prompt that is tuned for diversity. Needs the extra dspy."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Settings of the tuning."""
    data: DataConfig = field(default_factory=DataConfig)
    """Lists of phases. Their candidates are the examples, the reference and the known phases."""
    reward: AlloyConfig = field(
        default_factory=lambda: AlloyConfig(pool=PoolConfig(kind="processes", n_workers=2))
    )
    """Reward of candidates. If no cache is given, results are kept in OUTPUT."""
    seed: int = 0
    """Random seed for the choice of examples."""
    output: Path = Path("runs/alloy_endpoint")
    """Folder of the answers and the report."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    if config.ranked and config.samples is None:
        raise ValueError("ranked examples are taken from --samples, which is not given")
    with Experiment(
        config, config.output, config.tracking, "endpoint", vary=HOW_TO_ASK
    ) as experiment:
        lists = load_lists(config.data.lists)
        train, validation = candidates(lists.bcc, lists.b2, config.data.pairs)
        cache = config.reward.cache or experiment.folder / "rewards.sqlite"
        reward = replace(config.reward, cache=cache)
        experiment.use("model", config.model)
        experiment.describe(lists=config.data.lists, database=reward.engine.database)
        found: dict[str, AlloyEvaluation] = {}
        with AlloyReward(reward) as judge:
            lists.check(judge)
            reference = data_reference(config.data, lists, train, validation, judge)
            asking = Asking(config, lists, train, judge, reference)
            for shots in config.shots:
                prompts = shot_prompts(
                    config.n_prompts, asking.examples, asking.shots(shots), asking.known
                )
                found[f"{shots} examples"] = asking.answers(f"{shots}_shot", prompts)
            for shots in config.ranked:
                found[f"{shots} + {shots} ranked examples"] = asking.answers(
                    f"{shots}_ranked", [asking.ranked(shots)] * config.n_prompts
                )
            if config.n_dialogues:
                found |= asking.dialogues()
            if config.reviewed:
                found["reviewed"] = asking.reviewed()
            if config.tune:
                prompts = [asking.tuned()] * config.n_prompts
                found["tuned prompt"] = asking.answers("tuned", prompts, identify=True)
        table = table_one(found)
        table.write(experiment.folder)
        tables = [table.table, *published(table, judge.family)]
        for label, evaluation in found.items():
            summarize(experiment.main.tracker, label, evaluation)
        title = f"Superalloys proposed by {config.model or config.endpoint.model}"
        experiment.finish(Report(title, {}, tables=tables, notes=[*asking.notes, *judge.limits]))


class Asking:
    """Ways of asking, and the evaluation of what is answered."""

    def __init__(
        self,
        config: Config,
        lists: PhaseLists,
        train: Sequence[Candidate],
        judge: AlloyReward,
        reference: AlloyReference,
    ) -> None:
        self.config, self.lists = config, lists
        self.judge, self.reference = judge, reference
        self.prompts, self.tags = judge.family.prompts, judge.family.tags
        self.examples = [write_candidate(one, self.tags) for one in train]
        self.known = None
        if config.known:
            self.known = KnownPhases(formulas(lists.bcc), formulas(lists.b2))
        self.notes: list[str] = []

    def shots(self, n: int) -> ShotsConfig:
        """Settings of prompts with n examples."""
        config, elements = self.config, self.lists.elements
        return ShotsConfig.of(self.prompts, elements, n, config.seed, plain=config.plain)

    def ranked(self, n: int) -> Messages:
        """The prompt with the n best and worst samples."""
        assert self.config.samples is not None  # `main` looks
        texts, rewards = read_samples(self.config.samples)
        return ranked_prompts(1, texts, rewards, self.shots(n), self.known)[0]

    def tuned(self) -> Messages:
        """The tuned prompt, which is kept."""
        path = self.config.output / "tuned.json"
        if not path.exists():
            rng = np.random.default_rng(self.config.seed)
            n = min(len(self.examples), N_TUNING)
            chosen = rng.choice(len(self.examples), n, replace=False)
            examples = [self.examples[i] for i in chosen]
            endpoint, tuning = self.config.endpoint, self.config.tuning
            elements, family = self.lists.elements, self.judge.family
            prompt = tuned_prompt(endpoint, examples, elements, tuning, family)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(prompt), encoding="utf-8")
        return tuple(json.loads(path.read_text(encoding="utf-8")))

    def player(self, name: str, settings: EndpointConfig | None = None) -> Ask:
        """The model, or another one behind an endpoint, with a journal of that name."""
        if self.config.model and settings is None:
            return self._local
        journal = self.config.output / f"{name}.jsonl"
        return Endpoint(replace(settings or self.config.endpoint, journal=journal))

    @cached_property
    def _local(self) -> Ask:
        """The model here."""
        from crystaljax.alloys.baselines.policy_player import PolicyPlayer
        from crystaljax.text.generation import GenerationConfig
        from crystaljax.text.loading import TextModelConfig, load_text_policy

        asked, policy = self.config.endpoint, load_text_policy(TextModelConfig(self.config.model))
        temperature = 1.0 if asked.temperature is None else asked.temperature
        generation = GenerationConfig(temperature, max_new_tokens=asked.max_tokens, batch_size=16)
        return PolicyPlayer(policy, policy.start, generation, self.config.seed)

    def identified(self, prompt: Messages, way: str, number: int) -> Messages:
        """The prompt with an identifier, of its own for each way of asking and number."""
        return with_uuid(prompt, self.config.seed, crc32(way.encode()), number)

    def answers(
        self, name: str, prompts: Sequence[Messages], identify: bool = False
    ) -> AlloyEvaluation:
        """Evaluation of the answers to prompts."""
        if identify or self.config.identify:
            prompts = [self.identified(one, name, n) for n, one in enumerate(prompts)]
        answers = self.player(name)(prompts)
        return self.evaluation([final_answer(one, self.tags) for one in answers if one is not None])

    def evaluation(self, texts: Sequence[str]) -> AlloyEvaluation:
        """Evaluation of texts."""
        return evaluate_alloys(texts, self.judge.judge_texts(texts), self.reference)

    def dialogues(self) -> dict[str, AlloyEvaluation]:
        """Proposals of each round of the dialogues."""
        config = self.config
        generator = self.player("generator")
        evaluator = self.player("evaluator", config.evaluator)
        journal = config.output / "dialogues.jsonl"
        templates = self.prompts.evaluator, self.prompts.revision
        settings = DialogueConfig(self.lists.elements, config.revisions, *templates, journal)
        prompts = shot_prompts(config.n_dialogues, config=self.shots(0), known=self.known)
        judge = self.judge.judge_texts, settings, self.judge.identity, self.judge.family
        rounds = dialogue(prompts, generator, evaluator, *judge)
        return {
            f"dialogue, round {n}": evaluate_alloys(each.texts, each.rewards, self.reference)
            for n, each in enumerate(rounds, 1)
        }

    def reviewed(self) -> AlloyEvaluation:
        """Candidates that the evaluator accepts; prompts are ranked ones if there are samples."""
        config = self.config
        if config.samples is None:
            prompt = shot_prompts(1, config=self.shots(0), known=self.known)[0]
        else:
            prompt = self.ranked(max(config.ranked, default=N_RANKED))
        evaluator: Evaluator = RuleEvaluator(self.judge.judge_texts, self.judge.family)
        if config.reviewer == "model":
            asked = self.player("reviewer", config.evaluator)
            evaluator = ModelEvaluator(asked, self.lists.elements, self.prompts.review)
        found = review(
            lambda n: self.identified(prompt, "reviewed", n) if config.identify else prompt,
            self.player("reviewed"),
            evaluator,
            config.reviewed,
            config.review,
            self.judge.family,
        )
        self.notes.append(
            f"Reviewed: {len(found.texts)} accepted of {found.proposals} proposals in"
            f" {found.loops} loops, {found.given_up} of which were given up;"
            f" {found.unanswered} rounds without an answer."
        )
        return self.evaluation(found.texts)


if __name__ == "__main__":
    run(main, Config)
