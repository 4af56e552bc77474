"""`crystaljax evaluate`: the rates of crystals in a file, and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.commands.base import Command, OfFiles, relaxation_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crystaljax.evaluation.candidates import Candidates
    from crystaljax.evaluation.rates import MetricSet
    from crystaljax.evaluation.report import Picture
    from crystaljax.rewards.stability import StabilityReward

    Judges = tuple[StabilityReward | None, StabilityReward | None]


class Written(NamedTuple):
    """Files beside the report, and parts of the report."""

    said: str
    """Sentence that names the files."""
    pictures: Sequence[Picture] = ()
    candidates: Candidates | None = None


if TYPE_CHECKING:
    Judged = tuple[MetricSet, Callable[[Path], Written]]
    """The results, and a function that writes their tables and pictures to a folder."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Evaluate the crystals in a file, print the rates and write a report."""

    source: Annotated[str, tyro.conf.Positional]
    """Crystals: a file, a folder or a registered dataset. With --protocol csp: a table with the
    columns cif, formula or id (or material_id), and attempt; or CIFs named FORMULA_ATTEMPT.cif or
    ID_ATTEMPT.cif."""
    protocol: Literal["samples", "csp"] = "samples"
    """samples: crystals of a generative model. csp: crystal structure prediction, attempts at the
    crystals of --truth."""
    truth: str | None = None
    """With --protocol csp: the test crystals, a file, a folder or a registered dataset."""
    at: tuple[int, ...] = ()
    """With --protocol csp: numbers of attempts k of the match rates @k. Not given: 1 and the
    largest number of attempts."""
    train: str | None = None
    """Training set: a file, a folder or a registered dataset. Crystals in it are not novel; with
    --protocol csp, formulas that it lacks get rates of their own."""
    n_generated: int | None = None
    """Number of samples that the model was asked for. Those that are not in the file, as they were
    no crystals, count in every rate. Not given: the number of rows in the file."""
    potential: str = "chgnet"
    """Interatomic potential, with weights after a colon: chgnet, sevennet, sevennet:7net-l3i5,
    nequix, nequix:FILE.nqx, matgl:FOLDER, orb:MODEL, ase:FILE.py:FUNCTION, or FILE.py:CLASS of your
    own. none: no energies. Weights of your own need their level of theory, as in
    nequix:FILE.nqx@MP."""
    hull: str = "demonstration"
    """Convex hull of the potential's level of theory: demonstration (few compounds), mp-energies
    (the Materials Project's, downloaded once), or a table of formulas and formation energies
    (eV/atom) as FILE, FILE@LEVEL, or FILE:formula=COLUMN,energy=COLUMN; see the README."""
    relax: bool = False
    """Relax the crystals before their energy is taken. It takes seconds to minutes each."""
    relax_steps: int = 0
    """Relax, for at most this number of steps. 500 if only --relax is given."""
    cache: Path | None = None
    """File that keeps energies for later runs. Not given: none."""
    judge: str = ""
    """A second potential, whose results stand beside the first one's. Not given: none."""
    judge_hull: str = ""
    """Hull of the second potential's level of theory. Not given: --hull."""
    metrics: tuple[str, ...] = ()
    """Further metrics: functions of your own as FILE.py:FUNCTION, which take Crystals and return a
    Rate or a Measure (crystaljax.evaluation.rates)."""
    output: Path = Path("evaluation")
    """Folder of the report. A folder with another evaluation is refused."""

    def run(self, console: Console) -> None:
        from crystaljax.evaluation.report import Report
        from crystaljax.experiment.run_folder import open_run
        from crystaljax.provenance import Provenance, file_digests
        from crystaljax.rewards.ehull import hull_path
        from crystaljax.settings import plain

        steps = relaxation_steps(self.relax, self.relax_steps, self.potential)
        self._check()
        files: dict[str, str | Path | None] = {
            "source": self.source,
            "truth": self.truth,
            "train": self.train,
        }
        hulls = {"hull": hull_path(self.hull), "judge_hull": hull_path(self.judge_hull)}
        digests = file_digests(files | hulls)
        folder = open_run(self.output, OfFiles(self, digests), vary=("debug",))
        provenance = Provenance(plain(asdict(self)), {"sha256": digests})
        with self._judges(steps) as (energy, other):
            judge = self._predictions if self.protocol == "csp" else self._samples
            result, write = judge(energy, other)
            for name, one in (("energies", energy), ("energies_of_judge", other)):
                if one is not None:
                    provenance.inputs[name] = one.label
        table = Table("metric", "value", "count / total")
        for metric in result.metrics:
            table.add_row(metric.name, metric.text, metric.fraction)
        console.print(table)
        for line in result.context:
            console.print(line)
        written = write(folder)
        report = Report(
            f"Evaluation of {self.source}",
            {"samples": result},
            written.pictures,
            candidates=written.candidates,
        )
        page = provenance.added(report).write(folder)
        console.print(f"The report is in {page}, {written.said}")

    @contextmanager
    def _judges(self, steps: int) -> Iterator[Judges]:
        """The first and the second potential, if they are asked for.

        Missing packages, and hulls that do not fit, are reported before any potential is loaded.
        """
        from crystaljax.rewards.potentials import require_package
        from crystaljax.rewards.stability import StabilityConfig, StabilityReward

        asked = [(self.potential, self.hull), (self.judge, self.judge_hull or self.hull)]
        for name, _ in asked:
            require_package(name)
        with ExitStack() as stack:
            first, second = (
                stack.enter_context(StabilityReward(StabilityConfig(name, hull, steps, self.cache)))
                if name not in ("", "none")
                else None
                for name, hull in asked
            )
            yield first, second

    def _check(self) -> None:
        """ValueError for options that do not go together."""
        if self.n_generated is not None and self.n_generated < 1:
            raise ValueError(f"--n-generated {self.n_generated}: give at least 1")
        if self.judge and self.potential == "none":
            raise ValueError("--judge stands beside --potential: give its name there")
        if self.judge_hull and not self.judge:
            raise ValueError("--judge-hull is of --judge: give that, too")
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

    def _samples(self, energy: StabilityReward | None, other: StabilityReward | None) -> Judged:
        """Judge samples of a model."""
        from crystaljax.data.dataset import load, skipped
        from crystaljax.data.writers import write
        from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
        from crystaljax.evaluation.files import evaluate_file
        from crystaljax.experiment.evaluated import best_evaluated, evaluation_figures
        from crystaljax.reasons import in_words

        reference = None
        if self.train is not None:
            reference = Reference.of(load(self.train, max_sites=None).crystals, self.train)
        data = load(self.source, max_sites=None)
        n_rows = len(data) + data.n_skipped
        n = n_rows if self.n_generated is None else self.n_generated
        if n < n_rows:
            raise ValueError(f"--n-generated {n}: {self.source} alone has {n_rows} crystals")
        config = EvaluationConfig(metrics=self.metrics)
        result = evaluate_file(data.crystals, n, reference, energy, config, other)
        if reasons := [reason for _, reason in skipped(data)]:
            unread = f"not read, or no crystals: {in_words(reasons)}"
            result = replace(result, context=(*result.context, unread))

        def write_tables(folder: Path) -> Written:
            log_prob = data.properties.get("log_prob")
            if log_prob is not None and log_prob.dtype.kind != "f":
                log_prob = None  # a column of texts of that name
            best = best_evaluated(result, data.crystals, log_prob)
            name = "" if energy is None else energy.potential
            figures = evaluation_figures(result, best, name, reference)
            pictures = _saved(figures, folder)
            columns = {name: column[: len(data)] for name, column in result.columns.items()}
            given = {  # the file's own columns, under names that no result has
                f"source_{name}" if name in columns else name: column
                for name, column in data.properties.items()
            }
            ids = {"material_id": data.ids}
            write(data.crystals, folder / "samples.csv", {**ids, **given, **columns})
            said = "results by sample in samples.csv"
            return Written(said, pictures, best.candidates())

        return result, write_tables

    def _predictions(self, energy: StabilityReward | None, other: StabilityReward | None) -> Judged:
        """Judge attempts at predicting structures."""
        from crystaljax.evaluation.attempt_energies import csp_energies
        from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
        from crystaljax.evaluation.prediction_files import read_known, read_predictions
        from crystaljax.experiment.evaluated import attempt_figures

        assert self.truth is not None
        truth = read_known(self.truth)
        attempts = read_predictions(self.source, truth)
        train = None if self.train is None else read_known(self.train)
        energies, second = (
            None if judge is None else csp_energies(judge, truth, attempts)
            for judge in (energy, other)
        )
        config = CSPConfig(at=self.at)
        result = evaluate_csp(truth, attempts, train, energies, config, second)

        def write_tables(folder: Path) -> Written:
            result.write_tables(folder)
            figures = attempt_figures(result, "" if energies is None else energies.potential)
            said = "results by attempt in attempts.csv, by test crystal in targets.csv"
            return Written(said, _saved(figures, folder))

        return result, write_tables


def _saved(figures: Mapping[str, tuple[Figure, str]], folder: Path) -> list[Picture]:
    """The figures as files of a folder, each with its caption."""
    from crystaljax.evaluation.report import Picture
    from crystaljax.plots import save

    return [
        Picture(save(figure, folder / f"{stem}.png"), caption)
        for stem, (figure, caption) in figures.items()
    ]
