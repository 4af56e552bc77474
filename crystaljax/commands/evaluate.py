"""`crystaljax evaluate`: the rates of crystals in a file, and a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.commands.base import Command, OfFiles, relaxation_steps

if TYPE_CHECKING:
    from crystaljax.evaluation.rates import MetricSet
    from crystaljax.rewards.ehull import EnergyAboveHull

    Judged = tuple[MetricSet, Callable[[Path], str]]
    """What was found, and what writes the tables of it to a folder and says where they are."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Evaluate the crystals in a file, print the rates and write a report."""

    source: Annotated[str, tyro.conf.Positional]
    """Crystals: a file, a folder or a registered dataset. Of crystal structure prediction: a table
    with the columns formula, id or material_id, and attempt, or CIFs named FORMULA_ATTEMPT.cif or
    ID_ATTEMPT.cif."""
    protocol: Literal["samples", "csp"] = "samples"
    """Samples of a model, or crystal structure prediction: attempts at the crystals of --truth."""
    truth: str | None = None
    """Crystal structure prediction: the test crystals."""
    at: tuple[int, ...] = ()
    """Crystal structure prediction: numbers of attempts k of the match rates @k; 1 and the most
    that a test crystal has if not given."""
    train: str | None = None
    """Training set, for novelty, and for the test crystals of formulas that are not in it:
    likewise."""
    n_generated: int | None = None
    """Samples asked of the model, of which the file lacks those that were no crystals: they count
    in every rate. If not given, as many as the file has rows."""
    potential: str = "chgnet"
    """Interatomic potential, with weights after a colon: chgnet, sevennet, sevennet:7net-l3i5,
    nequix, nequix:FILE.nqx, matgl:FOLDER, orb:MODEL, or FILE.py:CLASS of your own; none leaves
    stability out. The level of theory of weights of your own follows, as in nequix:FILE.nqx@MP."""
    hull: str = "demonstration"
    """Hull to measure against: the demonstration hull, or a table of formulas and formation
    energies of the potential's level of theory; see --setup.stability.hull in the README."""
    relax: bool = False
    """Relax the crystals before their energy is taken: seconds to minutes each."""
    relax_steps: int = 0
    """The same, for so many steps at most; 500 if --relax is given alone."""
    metrics: tuple[str, ...] = ()
    """Further metrics, functions of your own as FILE.py:FUNCTION, which take Crystals and return a
    Rate or a Measure (crystaljax.evaluation.rates)."""
    output: Path = Path("evaluation")
    """Folder of the report; one that holds another evaluation is refused."""

    def run(self, console: Console) -> None:
        from crystaljax.evaluation.report import Report
        from crystaljax.experiment.run_folder import open_run
        from crystaljax.provenance import Provenance, file_digests
        from crystaljax.rewards.ehull import create_e_above_hull
        from crystaljax.settings import plain

        steps = relaxation_steps(self.relax, self.relax_steps, self.potential)
        self._check()
        files = {"source": self.source, "truth": self.truth, "train": self.train, "hull": self.hull}
        digests = file_digests(files)
        folder = open_run(self.output, OfFiles(self, digests), vary=("debug",))
        provenance = Provenance(plain(asdict(self)), {"sha256": digests})
        energy = None
        if self.potential != "none":
            energy = create_e_above_hull(self.potential, self.hull, steps)
        judge = self._predictions if self.protocol == "csp" else self._samples
        result, write = judge(energy)
        table = Table("metric", "value", "count / total")
        for metric in result.metrics:
            table.add_row(metric.name, metric.text, metric.fraction)
        console.print(table)
        for line in result.context:
            console.print(line)
        if energy is not None:
            provenance.inputs["energies"] = energy.label
        report = provenance.added(Report(f"Evaluation of {self.source}", {"samples": result}))
        page = report.write(folder)
        console.print(f"The report is in {page}, {write(folder)}")

    def _check(self) -> None:
        """ValueError for options that do not go together."""
        if self.n_generated is not None and self.n_generated < 1:
            raise ValueError(f"--n-generated {self.n_generated}: give at least 1")
        if self.protocol == "csp":
            if self.truth is None:
                raise ValueError("--protocol csp compares with test crystals: give --truth")
            if self.n_generated is not None or self.metrics:
                raise ValueError(
                    "--n-generated and --metrics are of samples: leave them out with --protocol csp"
                )
            if any(k < 1 for k in self.at):
                raise ValueError("--at: give numbers of attempts from 1 on")
        elif self.truth is not None or self.at:
            raise ValueError("--truth and --at go with --protocol csp: give that")

    def _samples(self, energy: EnergyAboveHull | None) -> Judged:
        """Judge samples of a model."""
        from crystaljax.data.dataset import load
        from crystaljax.data.writers import write
        from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
        from crystaljax.evaluation.files import evaluate_file

        reference = None
        if self.train is not None:
            reference = Reference.of(load(self.train, max_sites=None).crystals, self.train)
        data = load(self.source, max_sites=None)
        n_rows = len(data) + data.n_skipped
        n = n_rows if self.n_generated is None else self.n_generated
        if n < n_rows:
            raise ValueError(f"--n-generated {n}: {self.source} alone has {n_rows} crystals")
        config = EvaluationConfig(metrics=self.metrics)
        result = evaluate_file(data.crystals, n, reference, energy, config)

        def write_tables(folder: Path) -> str:
            columns = {name: column[: len(data)] for name, column in result.columns.items()}
            write(data.crystals, folder / "samples.csv", {"material_id": data.ids, **columns})
            return "what was found of each sample in samples.csv"

        return result, write_tables

    def _predictions(self, energy: EnergyAboveHull | None) -> Judged:
        """Judge attempts at predicting structures."""
        from crystaljax.evaluation.attempt_energies import csp_energies
        from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
        from crystaljax.evaluation.prediction_files import read_known, read_predictions

        assert self.truth is not None
        truth = read_known(self.truth)
        attempts = read_predictions(self.source, truth)
        train = None if self.train is None else read_known(self.train)
        energies = None
        if energy is not None:
            energies = csp_energies(energy, truth, attempts)
        result = evaluate_csp(truth, attempts, train, energies, CSPConfig(at=self.at))

        def write_tables(folder: Path) -> str:
            result.write_tables(folder)
            return "what was found of attempts in attempts.csv, of test crystals in targets.csv"

        return result, write_tables
