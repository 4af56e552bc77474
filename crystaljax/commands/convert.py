"""`crystaljax convert`: convert CrystalFormer's checkpoints to model folders, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from crystaljax.commands.base import Command
from crystaljax.data.files import require_absent


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Convert CrystalFormer's pickle to a model folder, or a model folder to a pickle."""

    source: Annotated[Path, tyro.conf.Positional]
    """A .pkl (read without running what it holds), or a model's folder."""
    target: Annotated[Path, tyro.conf.Positional]
    """Output: a folder, or a .pkl (with its hyper-parameters in config.json beside it)."""
    config: Path | None = None
    """JSON with the pickle's hyper-parameters. Not given: config.json beside it."""
    data: str | None = None
    """Dataset that gives the distribution of space groups to sample from, as the pickle has none.
    Not given: the embedded prototypes."""

    def run(self, console: Console) -> None:
        if not self.source.exists():
            raise FileNotFoundError(f"no pickle and no model folder {self.source}")
        if self.source.is_dir():
            self._to_pickle()
        else:
            self._to_folder(console)
        console.print(f"{self.source} is now in {self.target}")

    def _to_pickle(self) -> None:
        from crystaljax.evaluation.safeguards import writable_folder
        from crystaljax.models.wyckoff.crystalformer import export_checkpoint
        from crystaljax.policies.wyckoff import load_wyckoff

        if self.target.suffix != ".pkl":
            raise ValueError(f"{self.source} is a model's folder: give a target that ends in .pkl")
        require_absent(self.target, self.target.with_name("config.json"))
        policy, params = load_wyckoff(self.source)
        writable_folder(self.target.parent)
        export_checkpoint(policy.model(params), self.target)

    def _to_folder(self, console: Console) -> None:
        from flax import nnx

        from crystaljax.data.dataset import PROTOTYPES, load
        from crystaljax.evaluation.safeguards import writable_folder
        from crystaljax.models.wyckoff.crystalformer import import_checkpoint, read_config
        from crystaljax.policies.wyckoff import WyckoffPolicy

        settings = self.config or self.source.with_name("config.json")
        if not settings.is_file():
            raise FileNotFoundError(
                f"no {settings} with the hyper-parameters of {self.source.name}: give --config"
            )
        require_absent(self.target)
        config = read_config(settings)
        model = import_checkpoint(self.source, config)
        data = load(self.data or PROTOTYPES)
        # The prototypes lack elements that the model may have learnt.
        elements = data.element_counts if self.data else None
        formulas = data.formula_groups if self.data else None
        writable_folder(self.target)
        policy = WyckoffPolicy(config, data.space_group_counts, elements, formulas)
        policy.save(self.target, nnx.state(model, nnx.Param))
        console.print(
            f"The pickle does not say what it was trained on: samples get space groups and elements"
            f" as in {self.data}."
            if self.data
            else "The pickle does not say what it was trained on: samples get space groups as in"
            " the embedded prototypes, and all elements (give --data for those of a training set)."
        )
