"""Set-up of the experiments on crystals: a model, known crystals, a judge of stability."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
from crystaljax.evaluation.policies import Assessment, assess
from crystaljax.experiment.best import ALWAYS, JUDGE_ENERGY, RELAXED
from crystaljax.experiment.main import OF_THE_RUN
from crystaljax.policies.base import Params, Policy, SamplingConfig
from crystaljax.policies.loading import load_policy
from crystaljax.progress import working
from crystaljax.ranges import at_least, check
from crystaljax.rewards.base import Reward
from crystaljax.rewards.bounds import Quantity, RewardBounds, quantity_of
from crystaljax.rewards.guards import Guarding, Guards, create_guards
from crystaljax.rewards.levels import LevelError, split_level
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.rewards.user import UserReward
from crystaljax.tracking import TrackingConfig
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.reinforce import ReinforceConfig

if TYPE_CHECKING:
    from crystaljax.experiment.experiment import Experiment


log = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
"""Folder of the models that ship."""

AUTO, AUTO_JUDGE = "auto", "sevennet"
"""The default of `judge`, and the potential that it chooses."""


@dataclass(frozen=True)
class Setup:
    """Model, data and judge of an experiment."""

    model: Path = CHECKPOINTS / "wyckoff-mp20bt"
    """Folder of the model to start from: a Wyckoff transformer or a language model."""
    tokenization: str = ""
    """Tokenization that the model is expected to have. A text format from a file of your own,
    FILE.py:CLASS, is only run if it is given here."""
    templates: tuple[str, ...] = ()
    """Prompt templates of a language model, by name or file, in place of its own."""
    n_parts: int = 1
    """Number of micro-batches that a training batch is split into, to save memory."""
    reference: str = "prototypes"
    """Reference crystals: file, folder or dataset. Samples that match one of them are not novel."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """Potential and hull that judge stability. They are the reward too, if no other one is
    given."""
    reward: str = ""
    """A reward of your own instead of stability, as FILE.py:FUNCTION. The function takes a pymatgen
    Structure and returns a number, or takes Crystals and returns an array. It gets valid structures
    only. Larger is better. --setup.stability.pool and .cache also apply to it."""
    bounds: RewardBounds = field(default_factory=RewardBounds)
    """Bounds of the reward, and the penalty of samples that cannot be judged. By default those of
    the reward: energies above hull are bounded, rewards of your own are not."""
    guards: tuple[str, ...] = ()
    """Guards of the reward in training, in the order in which they act, as NAME or NAME:NUMBER. Not
    believed are sparse-hull:12 (systems with fewer hull entries), too-good:0.1 (crystals more
    eV/atom below the hull), pure-elements, and smact (compositions that SMACT rejects). Worth less
    are seen-compositions and seen-structures (1/(1 + n) after n times), and copies (1/m each for m
    copies in a group). Or FILE.py:FUNCTION of your own."""
    condition: Condition = field(default_factory=Condition)
    """Condition on samples, in training and in the evaluation."""
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(batch_size=100))
    """Settings of sampling, in training and in the evaluation."""
    judge: str = AUTO
    """A second potential for the evaluation, such as nequix. auto: SevenNet, if it is installed and
    fits the hull's level of theory, and another potential gives the reward. Empty: none."""
    judge_hull: str = ""
    """Hull of the second potential's level of theory. Not given: that of --setup.stability."""
    n_samples: int = 200
    """Fresh samples of each model for the evaluation."""
    metrics: tuple[str, ...] = ()
    """Further metrics for the evaluation: functions of your own as FILE.py:FUNCTION, which take
    Crystals and return a Rate or a Measure (crystaljax.evaluation.rates)."""
    output: Annotated[Path, OF_THE_RUN] = Path("runs/experiment")
    """Folder of the run and its report. A run with the same settings in it is continued."""
    seed: int = 0
    """Random seed for the evaluation samples."""
    tracking: Annotated[TrackingConfig, OF_THE_RUN] = field(default_factory=TrackingConfig)
    """Weights & Biases."""

    def __post_init__(self) -> None:
        check(self, n_samples=at_least(1), n_parts=at_least(1))

    def load_policy(self) -> tuple[Policy, Params]:
        """The model; errors as of `policies.loading.load_policy`."""
        return load_policy(self.model, self.tokenization, self.templates)


class Bench:
    """The set-up, loaded; use as a context manager so that workers end."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        with working(f"loading {setup.model.name}"):
            self.policy, self.base = setup.load_policy()
        self.policy.check([setup.condition], setup.sampling)
        self.stability = StabilityReward(setup.stability)
        self.user_reward = None
        if setup.reward:
            pool, cache = setup.stability.pool, setup.stability.cache
            self.user_reward = UserReward(setup.reward, pool, cache)
        self.reward: StabilityReward | UserReward = self.user_reward or self.stability
        self.guards(self.reward)  # tells mistakes before anything is computed
        self.judge, self._about_judge = second_judge(setup)
        self.reference = Reference.of(load(setup.reference).crystals, setup.reference)

    def guards(self, reward: Reward) -> Guards:
        """The set-up's guards of a reward, which have seen nothing; see `create_guards`."""
        guarding = Guarding(self.stability.hull, quantity_of(reward))
        return create_guards(self.setup.guards, guarding)

    def task(
        self,
        reward: Reward | None = None,
        conditions: Sequence[Condition] | None = None,
        judge_all: bool = False,
    ) -> CrystalTask:
        """A task of the set-up, with its reward and its condition or with other ones."""
        reward = reward or self.reward
        return CrystalTask(
            self.policy,
            self.base,
            reward,
            conditions or [self.setup.condition],
            self.setup.sampling,
            self.setup.bounds,
            self.reference.structures,
            self.setup.n_parts,
            judge_all,
            self.guards(reward),
        )

    def sample(self, params: Params, n: int, seed: int) -> Crystals:
        """Draw n samples; returns those that are crystals and meet the condition."""
        asked = [self.setup.condition] * n
        samples = self.policy.sample(params, asked, seed, self.setup.sampling)
        return samples.crystals[np.flatnonzero(samples.met)]

    def assess(self, params: Params, stream: int, n: int | None = None) -> Assessment:
        """Evaluate fresh samples; those of different streams are independent."""
        return assess(
            self.policy,
            params,
            self.stability,
            self.reference,
            n=n or self.setup.n_samples,
            seed=self.setup.seed + 1_000_001 + stream,
            conditions=[self.setup.condition],
            other=self.judge,
            sampling=self.setup.sampling,
            config=self.evaluation,
        )

    @property
    def evaluation(self) -> EvaluationConfig:
        """Settings of evaluations."""
        return EvaluationConfig(metrics=self.setup.metrics)

    @property
    def columns(self) -> list[str]:
        """Names for `ReportConfig.columns`: what evaluations find, and a user's own reward."""
        names = [*ALWAYS]
        if self.user_reward is not None:
            names.append("reward")
        if self.judge is not None:
            names.append(JUDGE_ENERGY)
        if self.setup.stability.relax_steps:
            names += RELAXED
        if self.setup.condition.asked:
            names.append("as_asked")
        return names

    @property
    def rewarded_by(self) -> str:
        """Description of the reward."""
        steps = self.setup.stability.relax_steps
        relaxed = f", relaxed for at most {steps} steps" if steps else ""
        return self.setup.reward or (
            f"minus the energy above hull by {self.stability.potential}{relaxed}"
        )

    @property
    def guarded_by(self) -> str:
        """The guards in words, if any."""
        return f", guarded by {', '.join(self.setup.guards)}" if self.setup.guards else ""

    def words(self, rl: ReinforceConfig) -> str:
        """A sentence on reinforcement learning from the set-up's model."""
        return (
            f"Model {self.setup.model.name}; {rl.n_steps} {rl.algorithm.upper()} steps of"
            f" {rl.batch_size} samples, τ = {self.quantity.of(rl.tau)}, reward {self.rewarded_by}"
            f"{self.guarded_by}."
        )

    def record(self, experiment: Experiment) -> None:
        """Put on record what the experiment starts from and is judged by."""
        experiment.use("model", self.setup.model)
        experiment.use("reference", self.setup.reference)
        experiment.describe(
            reward=self.rewarded_by,
            guards=self.setup.guards or None,
            energies=self.stability.label,
            energies_of_judge=None if self.judge is None else self.judge.label,
            reference_crystals=len(self.reference.structures),
        )

    @property
    def quantity(self) -> Quantity:
        """Quantity that the reward measures, for axes and tables."""
        return self.reward.quantity

    @property
    def aim(self) -> str:
        """The reward in a word, for titles."""
        name = "stability" if self.user_reward is None else self.quantity.name
        return name[:1].upper() + name[1:]

    @property
    def notes(self) -> list[str]:
        """Notes about the second judge and the hull for reports."""
        notes = [self._about_judge] if self._about_judge else []
        if self.setup.stability.hull == "demonstration":
            notes.append(
                "Energies are against the demonstration hull, which knows few compounds: most "
                "crystals look more stable than they are. Give a real hull with "
                "--setup.stability.hull."
            )
        return notes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for served in (self.stability, self.user_reward, self.judge):
            if served is not None:
                served.close()


def second_judge(setup: Setup) -> tuple[StabilityReward | None, str]:
    """The potential that judges beside the first one, and what was chosen if that was left open.

    It relaxes as the first one does.
    """
    name, hull = setup.judge, setup.judge_hull or setup.stability.hull
    config = StabilityConfig(name, hull, relax_steps=setup.stability.relax_steps)
    if name != AUTO:
        return (StabilityReward(config) if name else None), ""
    judge, problem = None, _no_choice(setup)
    if problem is None:
        try:
            judge = StabilityReward(replace(config, potential=AUTO_JUDGE))
        except LevelError:
            problem = f"the hull {hull} is of another level than {AUTO_JUDGE}'s"
        except ImportError as error:  # a package of SevenNet's is missing or broken
            problem = f"{AUTO_JUDGE} does not load ({type(error).__name__}: {error})"
    said = f"Energies are by {setup.stability.potential}, which rewards, and by {AUTO_JUDGE}."
    if problem is not None:
        said = f"No second potential judges: {problem}."
    said += " Choose with --setup.judge."
    log.info(said)
    return judge, said


def _no_choice(setup: Setup) -> str | None:
    """Reason that SevenNet is not taken as the second judge, or None."""
    if setup.reward:
        return "the reward is no potential's"
    if split_level(setup.stability.potential)[0].split(":")[0] == AUTO_JUDGE:
        return f"{AUTO_JUDGE} rewards"
    if find_spec("sevenn") is None:
        return 'SevenNet is not installed (pip install "crystaljax[sevenn]")'
    return None
