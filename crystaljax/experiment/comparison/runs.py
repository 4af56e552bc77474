"""The runs of a comparison: each has a folder of its own, and a result once it is finished."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crystaljax.experiment.comparison.variants import Variant
from crystaljax.experiment.run_results import RESULT_FILE, read_result, write_result

Stage = Literal["ceiling", "search", "train", "free", "grammar", "dpo", "grpo"]
"""ceiling: crystals encoded and decoded; search: a short training that chooses the learning rate;
train: the training; free and grammar: samples drawn freely, and under the grammar of their text
format; dpo and grpo: learning by preference and by reward from the trained model."""


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    variant: Variant
    stage: Stage
    seed: int
    learning_rate: float | None = None
    """Learning rate of a search; other stages use the one that was chosen."""

    @property
    def name(self) -> str:
        """Name of the run in W&B, and its path among all runs."""
        rate = "" if self.learning_rate is None else f"-lr{self.learning_rate:g}"
        return f"{self.variant.folder}/{self.stage}{rate}-seed{self.seed}"

    def folder(self, output: Path) -> Path:
        """Folder of its files."""
        return output / "runs" / self.name

    def result(self, output: Path) -> dict[str, Any] | None:
        """The result; None if the run is not finished, or was not started.

        ValueError if the file is damaged.
        """
        path = self.folder(output) / RESULT_FILE
        if not path.is_file():
            return None
        return read_result(path)

    def finish(self, output: Path, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result, completely or not at all."""
        described = {"run": asdict(self), **result}
        write_result(self.folder(output) / RESULT_FILE, described)
        return described
