"""What the experiments on crystals start from: a model, what is known already, what judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from crystaljax.assessment import Assessment, assess
from crystaljax.checkpoints import latest_step
from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import Reference
from crystaljax.policies import Params, load_policy
from crystaljax.rewards.base import Reward
from crystaljax.rewards.stability import Stability, StabilityConfig
from crystaljax.rewards.user import load_reward
from crystaljax.sampling import SamplingConfig
from crystaljax.tracking import TrackingConfig
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.rollouts import RewardBounds


@dataclass(frozen=True)
class Setup:
    """What an experiment is done with."""

    model: Path = Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt"
    """Folder of the model to start from."""
    reference: str = "prototypes"
    """Crystals that do not count as new: a file, a folder or a registered dataset."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """What judges, and rewards if no other reward is given."""
    reward: str = ""
    """Another reward than stability: FILE.py:FUNCTION of a pymatgen structure (a number) or of
    Crystals (an array); what it returns is maximised, within --setup.bounds."""
    bounds: RewardBounds = field(default_factory=RewardBounds)
    """What rewards are kept within."""
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(batch_size=100))
    """How rollouts and evaluated samples are drawn."""
    judge: str = ""
    """Another potential to judge with too, such as nequix; none if not given."""
    n_samples: int = 200
    """Fresh samples evaluated of each model."""
    output: Path = Path("runs/experiment")
    """Folder of the report and the run; one with the same settings is gone on with."""
    seed: int = 0
    """Of the samples."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


class Bench:
    """The set-up, loaded; use as a context manager so that workers end."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.output = setup.output
        self.policy, self.base = load_policy(setup.model)
        self.stability = Stability(setup.stability)
        self.reward: Reward = load_reward(setup.reward) if setup.reward else self.stability
        self.judge = None
        if setup.judge:
            self.judge = Stability(StabilityConfig(setup.judge, setup.stability.hull))
        self.reference = Reference.of(load(setup.reference).crystals, setup.reference)

    def run_folder(self, name: str) -> tuple[Path, int | None]:
        """The folder of a training run, and the step to go on from if it was interrupted."""
        folder = self.output / name
        return folder, latest_step(folder)

    def task(self, reward: Reward | None = None) -> CrystalTask:
        """What to train for: the set-up's reward, or another one."""
        return CrystalTask(
            self.policy,
            self.base,
            reward or self.reward,
            self.setup.sampling,
            self.setup.bounds,
            self.reference.structures,
        )

    def assess(self, params: Params, stream: int, n: int | None = None) -> Assessment:
        """Evaluate fresh samples; those of different streams are independent."""
        return assess(
            self.policy,
            params,
            self.stability,
            self.reference,
            n=n or self.setup.n_samples,
            seed=self.setup.seed + 1_000_001 + stream,
            other=self.judge,
            sampling=self.setup.sampling,
        )

    @property
    def rewarded_by(self) -> str:
        """What the reward is, in words."""
        return self.setup.reward or f"minus the energy above hull by {self.stability.potential}"

    @property
    def notes(self) -> list[str]:
        """What has to be said about the hull."""
        if self.setup.stability.hull != "demonstration":
            return []
        return [
            "Energies are against the demonstration hull, which knows few compounds: most crystals "
            "look more stable than they are. Give a real hull with --setup.stability.hull."
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stability.close()
        if self.judge is not None:
            self.judge.close()
