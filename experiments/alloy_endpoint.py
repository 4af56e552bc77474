"""Superalloys proposed by a model behind an OpenAI-compatible endpoint, judged by CALPHAD.

    export OPENAI_API_KEY=...
    python experiments/alloy_endpoint.py --endpoint.model NAME [--endpoint.base-url URL]

The model is asked with no, one and several examples, and in a dialogue with an evaluator that reads
what CALPHAD found (A.1.1 and A.1.4 of arXiv 2511.12036). Every answer is kept as it comes: run the
same command again to go on after an interruption. --endpoint.max-requests and
--endpoint.max-total-tokens bound the cost of each way of asking. The table is in OUTPUT.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from crystaljax.alloys.baselines.dialogue import DialogueConfig, dialogue
from crystaljax.alloys.baselines.endpoint import Endpoint, EndpointConfig
from crystaljax.alloys.baselines.shots import ShotsConfig, final_answer, shot_prompts
from crystaljax.alloys.dataset import candidates
from crystaljax.alloys.evaluation.metrics import AlloyEvaluation, AlloyReference, evaluate_alloys
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.lists import load_lists
from crystaljax.alloys.reward import AlloyConfig, AlloyReward
from crystaljax.evaluation.report import Report
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.experiment.main import run
from crystaljax.rewards.pool import PoolConfig
from crystaljax.tracking import TrackingConfig

HOW_TO_ASK = (
    *("base_url", "key_variable", "limit_name", "at_once", "timeout", "retries"),
    *("most_failures", "max_requests", "max_total_tokens"),
)
"""Settings of endpoints that a run may go on with others of."""


@dataclass(frozen=True)
class Config:
    """Ask, judge, compare."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """Who proposes, and also evaluates unless `evaluator` is given."""
    evaluator: EndpointConfig | None = None
    """Who says what to change in a dialogue."""
    shots: tuple[int, ...] = (0, 1, 5)
    """Examples in a prompt: each number is a way of asking."""
    n_prompts: int = 100
    """Prompts of each way."""
    n_dialogues: int = 20
    """Dialogues; none if 0."""
    revisions: int = 3
    """Rounds of a dialogue after the first."""
    lists: str = "alcocrni"
    """Phases whose candidates are the examples and the reference; see `alloys.py`."""
    reward: AlloyConfig = field(
        default_factory=lambda: AlloyConfig(pool=PoolConfig(kind="processes", n_workers=2))
    )
    """Reward of candidates; results are kept in OUTPUT if no cache is named."""
    seed: int = 0
    """Of the choice of examples."""
    output: Path = Path("runs/alloy_endpoint")
    """Folder of the answers and the report."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    with Experiment(
        config, config.output, config.tracking, "endpoint", vary=HOW_TO_ASK
    ) as experiment:
        folder = experiment.folder
        lists = load_lists(config.lists)
        train, validation = candidates(lists.bcc, lists.b2)
        reference = AlloyReference.of(f"{config.lists}/train", train, validation)
        reward = replace(config.reward, cache=config.reward.cache or folder / "rewards.sqlite")
        experiment.describe(lists=config.lists, database=reward.engine.database)
        found: dict[str, AlloyEvaluation] = {}
        with AlloyReward(reward) as judge:
            lists.check(judge)
            for shots in config.shots:
                label = f"{shots} examples"
                settings = ShotsConfig(lists.elements, shots, seed=config.seed)
                prompts = shot_prompts(config.n_prompts, [str(one) for one in train], settings)
                endpoint = replace(config.endpoint, journal=folder / f"{shots}_shot.jsonl")
                answers = Endpoint(endpoint)(prompts)
                texts = [final_answer(answer) for answer in answers if answer is not None]
                found[label] = evaluate_alloys(texts, judge.judge_texts(texts), reference)
            if config.n_dialogues:
                found |= dialogues(config, lists.elements, judge, reference)
        table = table_one(found)
        table.write(folder)
        for label, evaluation in found.items():
            summarize(experiment.main.tracker, label, evaluation)
        title = f"Superalloys proposed by {config.endpoint.model}"
        experiment.finish(Report(title, {}, tables=[table.table]))


def dialogues(
    config: Config, elements: tuple[str, ...], judge: AlloyReward, reference: AlloyReference
) -> dict[str, AlloyEvaluation]:
    """Proposals of each round of the dialogues."""
    folder = config.output
    generator = Endpoint(replace(config.endpoint, journal=folder / "generator.jsonl"))
    evaluator = Endpoint(
        replace(config.evaluator or config.endpoint, journal=folder / "evaluator.jsonl")
    )
    settings = DialogueConfig(elements, config.revisions, journal=folder / "dialogues.jsonl")
    prompts = shot_prompts(config.n_dialogues, config=ShotsConfig(elements))
    rounds = dialogue(prompts, generator, evaluator, judge.judge_texts, settings, judge.identity)
    return {
        f"dialogue, round {n}": evaluate_alloys(each.texts, each.rewards, reference)
        for n, each in enumerate(rounds, 1)
    }


if __name__ == "__main__":
    run(main, Config)
