"""The `crystaljax` command: what people do from a shell.

Everything heavy is imported by the command that needs it, so that help comes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.user_errors import one_line_errors

if TYPE_CHECKING:
    from crystaljax.conditions import Condition
    from crystaljax.evaluation.rates import MetricSet
    from crystaljax.rewards.ehull import EnergyAboveHull

    Judged = tuple[MetricSet, Callable[[Path], str]]
    """What was found, and what writes the tables of it to a folder and says where they are."""

MAX_SAMPLES = 10_000_000
"""Samples of one file: all of them are held in memory."""

MAX_RELAX_STEPS = 500
"""Steps of a relaxation, if their number is not given."""

MAX_SEED = 2**32 - 1
"""JAX uses no more bits of a seed: a larger one would give the samples of another."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Options of all commands."""

    debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the whole traceback of an error."""

    def run(self, console: Console) -> None:
        """Do it; raises one of `user_errors.USER_ERRORS` for what the user can mend."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """Sample crystals from a model and write them to a file."""

    model: Path
    """Folder of a model, such as checkpoints/wyckoff-mp20bt, or of a language model."""
    output: Path
    """File for the crystals: .zip (of CIFs), .csv, .extxyz or .json.gz"""
    tokenization: str = ""
    """Tokenization that the model is expected to have. A text format from a file of your own,
    FILE.py:CLASS, is only run if it is given here."""
    templates: tuple[str, ...] = ()
    """Prompt templates of a language model, by name or file, in place of its own."""
    n: int | None = None
    """Samples to draw, 100 if not given; with --conditions of each of them, 1 if not given."""
    seed: int = 0
    """The same seed gives the same samples, whatever the batch size."""
    temperature: float = 1.0
    """Below 1 likelier crystals, above 1 more varied ones."""
    top_p: float = 1.0
    """Draw letters and elements only from the likeliest that make up this probability."""
    elements: tuple[str, ...] = ()
    """Elements that may occur, such as Fe O; all if not given."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    space_groups: tuple[int, ...] = ()
    """Space groups to draw from, as often as in the training data; all if not given."""
    template: tuple[str, ...] = ()
    """Wyckoff letters of all sites, such as a a b; only groups that have them are drawn."""
    formula: str | None = None
    """Composition, such as SrTiO3."""
    formula_units: int = 1
    """Formulas, as written, in the primitive cell; 0 leaves their number open."""
    conditions: Path | None = None
    """File of what each sample is asked to be, in place of elements, required, space groups,
    template and formula: a .csv or .jsonl with these as columns (formula, formula_units, elements,
    required, space_group, template, and properties.NAME), such as 500 formulas one a line."""
    max_candidates: int = 8
    """Candidates drawn for each sample, at most, where some have to be chosen from to meet the
    conditions: more come nearer to the model's own distribution of such crystals."""
    grammar: bool = False
    """Language models: hold samples to the grammar of their text format."""
    max_new_tokens: int = 0
    """Language models: tokens of a crystal at most; as many as the model was made for if 0."""
    batch_size: int = 256
    """Samples made at a time."""

    def run(self, console: Console) -> None:
        import numpy as np

        from crystaljax.data.writers import check_target, write
        from crystaljax.evaluation.files import in_words
        from crystaljax.policies.base import SamplingConfig
        from crystaljax.policies.loading import load_policy

        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"--seed {self.seed}: give a whole number from 0 to {MAX_SEED}")
        names = {field.name for field in fields(SamplingConfig)}
        sampling = SamplingConfig(**{name: getattr(self, name) for name in names})
        conditions, repeat = self._asked()
        n = len(conditions) * repeat
        check_target(self.output)
        policy, params = load_policy(self.model, self.tokenization, self.templates)
        with console.status(f"sampling {n} crystals"):
            rollout = policy.sample(params, conditions, self.seed, sampling, repeat)
        rows = np.flatnonzero(rollout.met)
        if not len(rows):
            raise ValueError(
                f"none of {n} samples is a crystal as asked for ({in_words(rollout.reasons)}): ask "
                "for less, or for more samples"
            )
        properties = {
            "material_id": rows,
            "log_prob": rollout.logp_model[rows],
            "log_prob_sampled": rollout.logp[rows],
            "weight": rollout.weight[rows],
        }
        write(rollout.crystals[rows], self.output, properties)
        console.print(f"{len(rows)} of {n} samples are in {self.output}")
        if len(rows) < n:
            no_crystal, other = int((~rollout.ok).sum()), int((rollout.ok & ~rollout.met).sum())
            console.print(
                f"left out: {no_crystal} that are no crystal, {other} that are another one than"
                f" asked for ({in_words(rollout.reasons)})"
            )
        if len(np.unique(rollout.log_weight)) > 1:
            console.print(
                f"effective sample size: {rollout.effective_size:.1f} of {n} (the file has "
                "the samples' weights, for averages over the model's distribution of such crystals)"
            )

    def _asked(self) -> tuple[list[Condition], int]:
        """Conditions, and how many samples of each in a row."""
        from crystaljax.conditions import Condition
        from crystaljax.data.condition_files import read_conditions

        n = self.n if self.n is not None else 1 if self.conditions else 100
        if n < 1:
            raise ValueError(f"--n {n}: give at least 1")
        wishes = self.formula, self.elements, self.required, self.space_groups, self.template
        if self.conditions is not None:
            if any(wishes):
                raise ValueError(f"--conditions {self.conditions}: say all of it in the file")
            conditions, repeat = read_conditions(self.conditions), n
        else:
            one = Condition(
                formula=self.formula,
                formula_units=(self.formula_units or None) if self.formula else None,
                elements=self.elements or None,
                required=self.required,
                space_group=self.space_groups or None,
                template=self.template or None,
            )
            conditions, repeat = [one] * min(n, MAX_SAMPLES + 1), 1
        if len(conditions) * repeat > MAX_SAMPLES:
            raise ValueError(f"--n {n}: give {MAX_SAMPLES} at most in all, other seeds for more")
        return conditions, repeat


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

        self._check()
        files = {"source": self.source, "truth": self.truth, "train": self.train, "hull": self.hull}
        digests = file_digests(files)
        folder = open_run(self.output, EvaluatedFile(self, digests), vary=("debug",))
        provenance = Provenance(plain(asdict(self)), {"sha256": digests})
        energy = None
        if self.potential != "none":
            steps = self.relax_steps or (MAX_RELAX_STEPS if self.relax else 0)
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
        if self.relax_steps < 0:
            raise ValueError(f"--relax-steps {self.relax_steps}: give at least 0")
        if (self.relax or self.relax_steps) and self.potential == "none":
            raise ValueError("--relax needs a potential: leave --potential none out")
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


@dataclass(frozen=True)
class EvaluatedFile:
    """All that tells an evaluation from another one."""

    options: Evaluate
    sha256: dict[str, str]
    """Of the files it is of."""


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """Read and symmetrise crystals (once, then cached), and say what they are."""

    source: Annotated[str, tyro.conf.Positional]
    """A file, a folder or a registered dataset."""
    symprec: float = 0.01
    """Å, tolerance of the symmetry search."""
    max_sites: int = 20
    """Crystals with more Wyckoff sites (1 at least) are skipped."""
    output: Path | None = None
    """Also write them here: .zip, .csv, .extxyz or .json.gz"""

    def run(self, console: Console) -> None:
        from crystaljax.data.dataset import load
        from crystaljax.data.writers import check_target, write
        from crystaljax.symmetry.orbits import n_atoms
        from crystaljax.symmetry.tables import tables

        if self.output is not None:
            check_target(self.output)
            source = Path(self.source)
            if self.output.exists() and source.exists() and self.output.samefile(source):
                raise FileExistsError(f"{self.output} is the source: give another --output")
        data = load(self.source, symprec=self.symprec, max_sites=self.max_sites)
        crystals = data.crystals.to_numpy()
        counts = data.space_group_counts
        console.print(f"{len(data)} crystals, of {(counts > 0).sum()} space groups")
        console.print(_spread("Wyckoff sites", crystals.n_sites))
        console.print(_spread("atoms in the primitive cell", n_atoms(crystals, primitive=True)))
        table = Table("space group", "crystals", "share", title="the most frequent")
        for row in counts.argsort()[::-1][:10]:
            if counts[row]:
                share = f"{100 * counts[row] / len(data):.1f} %"
                table.add_row(f"{row + 1} {tables().symbol[row]}", str(counts[row]), share)
        console.print(table)
        console.print(f"properties: {', '.join(data.properties) or 'none'}")
        if data.folder is not None:
            console.print(f"cached in {data.folder}")
            skipped = f"{data.n_skipped} of {len(data) + data.n_skipped} rows skipped"
            why = f", for the reasons in {data.folder / 'skipped.csv'}" if data.n_skipped else ""
            console.print(skipped + why)
        if self.output is not None:
            write(crystals, self.output, {"material_id": data.ids, **data.properties})
            console.print(f"written to {self.output}")


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """CrystalFormer's pickle to a model folder, or a model folder to a pickle."""

    source: Annotated[Path, tyro.conf.Positional]
    """A .pkl (read without running what it holds), or a model's folder."""
    target: Annotated[Path, tyro.conf.Positional]
    """Output: a folder, or a .pkl (its hyper-parameters go to config.json beside it)."""
    config: Path | None = None
    """JSON of the pickle's hyper-parameters; config.json beside it if not given."""
    data: str | None = None
    """Dataset whose space groups samples will be drawn with, as the pickle has no distribution;
    the embedded prototypes if not given."""

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
        writable_folder(self.target)
        policy = WyckoffPolicy(config, data.space_group_counts, elements)
        policy.save(self.target, nnx.state(model, nnx.Param))
        console.print(
            f"The pickle does not say what it was trained on: samples get space groups and elements"
            f" as in {self.data}."
            if self.data
            else "The pickle does not say what it was trained on: samples get space groups as in"
            " the embedded prototypes, and all elements (give --data for those of a training set)."
        )


def require_absent(*paths: Path) -> None:
    """FileExistsError for the first of the paths where something is that would be lost."""
    for path in paths:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise FileExistsError(f"{path} exists: choose another target, or move it away")


def _spread(name: str, values: Any) -> str:
    return f"{name}: {values.min()} to {values.max()}, on average {values.mean():.1f}"


COMMANDS: dict[str, Any] = {
    "sample": Sample,
    "evaluate": Evaluate,
    "data": Data,
    "convert": Convert,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error that the user can mend is one line, and exit status 2."""
    command: Command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="crystaljax",
        description="Propose crystals, judge them, learn from the verdict.",
        args=arguments,
    )
    from crystaljax.runtime import prepare

    prepare()
    with one_line_errors("crystaljax", command.debug):
        command.run(Console(soft_wrap=True, markup=False, highlight=False))
