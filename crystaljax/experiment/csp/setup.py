"""Configuration of a study of structure prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crystaljax.conditions import Condition
from crystaljax.experiment.crystals import Setup
from crystaljax.policies.base import Params, Policy
from crystaljax.policies.loading import load_policy
from crystaljax.ranges import at_least, check
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.sft import SftConfig

RowName = Literal["substitution", "random", "zero-shot", "rl", "sft", "sft-rl", "model", "model-rl"]

BASELINES: tuple[RowName, ...] = ("substitution", "random")
"""Rows without a model, which are run for the first seed alone."""

PRETRAINED: tuple[RowName, ...] = ("zero-shot", "rl")
"""Rows of the pretrained language model as it is."""

TRAINED: dict[RowName, RowName] = {"rl": "zero-shot", "sft-rl": "sft", "model-rl": "model"}
"""Rows that learn by reward, and the rows of the models that they start from."""


@dataclass(frozen=True)
class CSPSetup(Setup):
    """Model, data and judge of structure prediction."""

    train: str = ""
    """Training set: a file, a folder or a registered dataset. Its formulas are asked for in
    training; its crystals are what a text model learns, what baselines start from, what energies
    are relative to, and what does not count as new."""
    test: str = ""
    """Test crystals, whose formulas are asked for in the evaluation."""
    n_samples: int = 300
    """Test crystals, drawn by the seed; 0 takes all."""
    fixed_units: bool = True
    """The number of formula units in the primitive cell is asked for too, of models that can be:
    most published numbers are so."""
    max_atoms: int = 0
    """Largest number of atoms in the primitive cells of random search. 0: that of the test
    crystals."""
    guards: tuple[str, ...] = ()
    """Guards of the reward in training, as NAME or NAME:NUMBER, in the order in which they act:
    copies (m copies of a structure within a group are worth 1/m each: for many different structures
    of a formula, and not for the right one), seen-structures, seen-compositions, sparse-hull,
    too-good, smact, or FILE.py:FUNCTION of your own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the parameters and computations of a language model."""
    fsdp: int = 1
    """Devices that share one copy of a language model's parameters and of its optimiser's state."""

    def __post_init__(self) -> None:
        check(self, n_samples=at_least(0), n_parts=at_least(1), fsdp=at_least(1))
        check(self, max_atoms=at_least(0))
        unused = {"reward": "", "condition": Condition(), "metrics": (), "reference": "prototypes"}
        for name, default in unused.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"structure prediction does not take --setup.{name}: formulas are those of"
                    " --setup.train and --setup.test, and rewards are --reward.terms"
                )

    def load_policy(self) -> tuple[Policy, Params]:
        """The model; a language model is held as configured."""
        return self.load(self.model, self.tokenization, self.templates)

    def load(
        self, model: str | Path, tokenization: str = "", templates: Sequence[str] = ()
    ) -> tuple[Policy, Params]:
        """A model of a folder or the hub, held as configured; errors as of `load_policy`."""
        if (self.dtype, self.fsdp) == ("float32", 1):
            return load_policy(model, tokenization, templates)
        from crystaljax.parallel import MeshConfig
        from crystaljax.text.loading import TextModelConfig

        held = TextModelConfig(dtype=self.dtype, remat="all", mesh=MeshConfig(fsdp=self.fsdp))
        return load_policy(model, tokenization, templates, held)


@dataclass(frozen=True)
class TextRowsConfig:
    """The language model of the rows zero-shot, rl, sft and sft-rl."""

    pretrained: str = ""
    """Folder, or name on the hub, of a pretrained instruct model. Without one there are no rows
    zero-shot and rl, and SFT starts from a model of a million parameters with random weights."""
    taught: Path | None = None
    """Folder of a language model that has learnt crystals of formulas, in place of SFT."""
    format: str = ""
    """Text format; coordinates of a pretrained model if not given, else wyckoff-text."""
    template: str = ""
    """Prompt template; csp_two_examples of a pretrained model if not given, else formula."""
    max_sites: int = 6
    """Crystals with more symmetry-distinct sites are not learnt."""
    sft: SftConfig = field(
        default_factory=lambda: SftConfig(
            n_epochs=4,
            batch_size=32,
            log_every=10,
            validate_every=200,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, ema_decay=0.0),
        )
    )
    """Supervised fine-tuning; its seed is of --seeds."""

    @property
    def written_as(self) -> str:
        """The text format."""
        return self.format or ("coordinates" if self.pretrained else "wyckoff-text")

    @property
    def asked_by(self) -> str:
        """The prompt template."""
        return self.template or ("csp_two_examples" if self.pretrained else "formula")


@dataclass(frozen=True)
class ExamConfig:
    """The evaluation, the same of all rows."""

    k: int = 20
    """Attempts at each test crystal."""
    judged: int = 1
    """The first of them that have energies."""
    relax_steps: int = 0
    """Steps that these are relaxed for at most, and the true structures; 0 does not relax."""

    def __post_init__(self) -> None:
        check(self, k=at_least(1), judged=at_least(0), relax_steps=at_least(0))
