"""The `crystaljax` command: what people do from a shell."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.sampling import SamplingConfig

USER_ERRORS = (ValueError, OSError, FloatingPointError, ImportError)
"""Errors that a user can cause: they are shown as one line."""


@dataclass(frozen=True)
class Sample:
    """Sample crystals from a model and write them to a file."""

    model: Path
    """Folder of a model."""
    output: Path
    """.zip (of CIFs), .csv, .extxyz or .json.gz"""
    n: int = 100
    """Samples to draw."""
    seed: int = 0
    """The same seed gives the same samples."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(
        default_factory=SamplingConfig
    )

    def run(self, console: Console) -> None:
        from crystaljax.data.writers import write
        from crystaljax.evaluation.limits import writable_folder
        from crystaljax.policies import load_policy

        writable_folder(self.output.parent)
        policy, params = load_policy(self.model)
        with console.status(f"sampling {self.n} crystals"):
            rollout = policy.sample(params, self.n, self.seed, self.sampling)
            decoded = policy.tokenization.decode(rollout.tokens)
        kept = decoded.ok & rollout.satisfied
        write(
            decoded.crystals[kept],
            self.output,
            {"log_prob": rollout.logp_model[kept], "log_prob_sampled": rollout.logp[kept]},
        )
        console.print(f"{kept.sum()} of {self.n} samples are in {self.output}")
        unsatisfied = (decoded.ok & ~rollout.satisfied).sum()
        for reason, count in Counter(r for r in decoded.reasons if r).most_common():
            console.print(f"  {count} are no crystal: {reason}")
        if unsatisfied:
            console.print(f"  {unsatisfied} do not meet the demands")


@dataclass(frozen=True)
class Evaluate:
    """Evaluate crystals in a file, unrelaxed, and write a report."""

    source: Annotated[str, tyro.conf.Positional]
    """Crystals: a file, a folder or a registered dataset."""
    reference: str | None = None
    """Training set, for novelty: likewise."""
    potential: str | None = "chgnet"
    """Interatomic potential; None to leave stability out."""
    hull: str = "demonstration"
    """A table of formulas and formation energies, or the demonstration hull."""
    output: Path = Path("evaluation")
    """Folder of the report."""

    def run(self, console: Console) -> None:
        from crystaljax.data.dataset import load
        from crystaljax.evaluation.evaluate import Reference, evaluate
        from crystaljax.evaluation.limits import writable_folder
        from crystaljax.evaluation.report import Report
        from crystaljax.rewards.ehull import create_e_above_hull

        output = writable_folder(self.output)
        data = load(self.source)
        reference = None
        if self.reference is not None:
            reference = Reference.of(load(self.reference).crystals, self.reference)
        energies: dict[str, Any] = {}
        if self.potential is not None:
            energy = create_e_above_hull(self.potential, self.hull)
            above = energy(data.crystals).info["e_above_hull"]
            energies = {
                "e_above_hull": above,
                "hull": f"{energy.hull.name}, {self.potential}, unrelaxed",
            }
        result = evaluate(data.crystals, reference, **energies)
        table = Table("metric", "value", "of")
        for metric in result.metrics:
            values = metric.to_dict()
            table.add_row(metric.name, f"{metric.value:.4g}", str(values.get("total", "")))
        console.print(table)
        page = Report(f"Evaluation of {self.source}", {"samples": result}).write(output)
        console.print(f"The report is in {page}")


@dataclass(frozen=True)
class Data:
    """Read and symmetrise crystals (cached), and say what they are."""

    source: Annotated[str, tyro.conf.Positional]
    """A file, a folder or a registered dataset."""
    symprec: float = 0.01
    """Å, tolerance of the symmetry search."""
    max_sites: int = 20
    """Crystals with more Wyckoff sites are skipped."""
    output: Path | None = None
    """Also write them here: .zip, .csv, .extxyz or .json.gz"""

    def run(self, console: Console) -> None:
        from crystaljax.data.dataset import load
        from crystaljax.data.writers import write
        from crystaljax.symmetry.tables import tables

        data = load(self.source, symprec=self.symprec, max_sites=self.max_sites)
        sites = data.crystals.n_sites
        console.print(f"{len(data)} crystals of {sites.mean():.2f} sites on average")
        if data.n_skipped:
            console.print(f"{data.n_skipped} rows skipped: see {data.folder}/skipped.csv")
        table = Table("space group", "crystals")
        counts = data.space_group_counts
        for row in counts.argsort()[::-1][:10]:
            if counts[row]:
                table.add_row(f"{row + 1} {tables().symbol[row]}", str(counts[row]))
        console.print(table)
        if self.output is not None:
            write(data.crystals, self.output, data.properties)
            console.print(f"written to {self.output}")


@dataclass(frozen=True)
class Convert:
    """CrystalFormer's pickle to a model folder, or a model folder to a pickle."""

    source: Annotated[Path, tyro.conf.Positional]
    """A .pkl (read without running what it holds), or a model's folder."""
    target: Annotated[Path, tyro.conf.Positional]
    """A folder, or a .pkl"""
    config: Path | None = None
    """JSON of the pickle's hyper-parameters; config.json beside it if not given."""
    data: str = "prototypes"
    """Dataset whose space groups samples are drawn with, as the pickle does not tell."""

    def run(self, console: Console) -> None:
        from flax import nnx

        from crystaljax.data.dataset import load
        from crystaljax.evaluation.limits import writable_folder
        from crystaljax.models.crystalformer import (
            export_checkpoint,
            import_checkpoint,
            read_config,
        )
        from crystaljax.policies import WyckoffPolicy, load_policy

        if self.source.is_dir():
            policy, params = load_policy(self.source)
            writable_folder(self.target.parent)
            export_checkpoint(policy.model(params), self.target)
        else:
            config = read_config(self.config or self.source.with_name("config.json"))
            model = import_checkpoint(self.source, config)
            counts = load(self.data).space_group_counts
            writable_folder(self.target)
            WyckoffPolicy(config, counts).save(self.target, nnx.state(model))
            console.print(f"Space groups will be drawn as in {self.data}.")
        console.print(f"{self.source} is now in {self.target}")


COMMANDS: dict[str, Any] = {
    "sample": Sample,
    "evaluate": Evaluate,
    "data": Data,
    "convert": Convert,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error that the user can mend is one line, and exit status 2."""
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="crystaljax",
        description=__doc__,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        command.run(Console())
    except USER_ERRORS as error:
        Console(stderr=True).print(f"[red]crystaljax:[/red] {error}", highlight=False)
        sys.exit(2)
