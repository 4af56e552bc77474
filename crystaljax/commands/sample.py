"""`crystaljax sample`: crystals from a model, in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.commands.base import Command, check_seed

if TYPE_CHECKING:
    import numpy as np

    from crystaljax.conditions import Condition
    from crystaljax.crystal import Crystals
    from crystaljax.policies.base import Rollout
    from crystaljax.rewards.stability import StabilityReward

MAX_SAMPLES = 10_000_000
"""Largest number of samples in one file: all of them are held in memory."""

N_SHOWN = 10
"""Rows of the table of ranked samples that is printed."""


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
    """Number of samples; 100 if not given. With --conditions: samples for each line; 1 if not
    given."""
    seed: int = 0
    """Random seed. The same seed gives the same samples at any batch size."""
    temperature: float = 1.0
    """Sampling temperature. Below 1: likelier crystals; above 1: more varied ones."""
    top_p: float = 1.0
    """Draw letters and elements only from the most likely ones, which together have this
    probability."""
    elements: tuple[str, ...] = ()
    """Elements that may occur, such as Fe O. Not given: all."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    chemical_system: str = ""
    """Exactly these elements, such as Li-Fe-O."""
    space_groups: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--space-group"])] = ()
    """Space group by number or symbol (225, Fm-3m), or several to draw from with their frequencies
    in the training data. Not given: all."""
    template: tuple[str, ...] = ()
    """Wyckoff letters of all sites, such as a a b. Only space groups that have them are drawn."""
    formula: str | None = None
    """Composition, such as SrTiO3."""
    formula_units: int = 1
    """Number of formula units (as written) in the primitive cell. 0: any."""
    conditions: Path | None = None
    """File with a condition for each sample, instead of the options above: a .csv or .jsonl with
    some of the columns formula, formula_units, elements, required, chemical_system, space_group,
    template and properties.NAME. Example: 500 lines with one formula each."""
    max_candidates: int = 8
    """Largest number of candidates from which each sample is selected, under conditions. With more,
    samples follow the model's own distribution of such crystals more closely."""
    grammar: bool = False
    """Language models: sample only texts that fit the grammar of the text format."""
    max_new_tokens: int = 0
    """Language models: largest number of tokens of a crystal. 0: as many as the model was made
    for."""
    batch_size: int = 256
    """Samples drawn at a time."""
    unique: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave out duplicates. Of samples that match each other (pymatgen's StructureMatcher), the
    most likely one is kept."""
    rank: str = ""
    """Rank the samples by an interatomic potential, such as chgnet (see `crystaljax evaluate`): the
    lowest energy above hull comes first. Samples are not relaxed. The file has the energies."""
    hull: str = ""
    """Convex hull for --rank, as in `crystaljax evaluate`. Not given: the demonstration hull."""
    cache: Path | None = None
    """File that keeps energies for later runs. Not given: none."""

    def run(self, console: Console) -> None:
        from crystaljax.data.writers import check_target
        from crystaljax.policies.base import SamplingConfig
        from crystaljax.policies.loading import load_policy
        from crystaljax.progress import working
        from crystaljax.rewards.potentials import require_package

        check_seed(self.seed)
        names = {field.name for field in fields(SamplingConfig)}
        sampling = SamplingConfig(**{name: getattr(self, name) for name in names})
        conditions, repeat = self._asked()
        n = len(conditions) * repeat
        check_target(self.output)
        if self.hull and not self.rank:
            raise ValueError(f"--hull {self.hull} is for ranking: give --rank POTENTIAL, too")
        require_package(self.rank)
        policy, params = load_policy(self.model, self.tokenization, self.templates)
        policy.check(list(dict.fromkeys(conditions)), sampling)
        with self._ranking() as ranking:
            with working(f"sampling {n} crystals"):
                each = [one for one in conditions for _ in range(repeat)]  # a prompt each
                rollout = policy.sample(params, each, self.seed, sampling)
            self._write(rollout, ranking, console)

    @contextmanager
    def _ranking(self) -> Iterator[StabilityReward | None]:
        """The potential that ranks, loaded before anything is sampled; None if none does."""
        if not self.rank:
            yield None
            return
        from crystaljax.rewards.stability import StabilityConfig, StabilityReward

        config = StabilityConfig(self.rank, self.hull or "demonstration", cache=self.cache)
        with StabilityReward(config) as ranking:
            yield ranking

    def _write(self, rollout: Rollout, ranking: StabilityReward | None, console: Console) -> None:
        """Write the samples that meet their conditions, and print a summary."""
        import numpy as np

        from crystaljax.data.writers import write
        from crystaljax.evaluation.files import ranked, without_duplicates
        from crystaljax.evaluation.summary import commonest
        from crystaljax.reasons import in_words

        n = len(rollout)
        met = rows = np.flatnonzero(rollout.met)
        if not len(met):
            raise ValueError(
                f"none of {n} samples is a crystal as asked for ({in_words(rollout.reasons)}): ask "
                "for less, or for more samples"
            )
        if self.unique:
            rows = rows[without_duplicates(rollout.crystals[rows], rollout.logp_model[rows])]
        energies: dict[str, np.ndarray] = {}
        unranked = 0
        if ranking is not None:
            order, energies, reasons = ranked(ranking, rollout.crystals[rows])
            rows, unranked = rows[order], sum(reason is not None for reason in reasons)
        properties = {
            "material_id": rows,
            "log_prob": rollout.logp_model[rows],
            "log_prob_sampled": rollout.logp[rows],
            "weight": rollout.weight[rows],
            **energies,
        }
        write(rollout.crystals[rows], self.output, properties)
        console.print(f"{len(rows)} of {n} samples are in {self.output}")
        if len(met) < n:
            no_crystal, other = int((~rollout.ok).sum()), int((rollout.ok & ~rollout.met).sum())
            console.print(
                f"left out: {no_crystal} that are no crystal, {other} that are another one than"
                f" asked for ({in_words(rollout.reasons)})"
            )
        if self.unique:
            console.print(f"duplicates left out: {len(met) - len(rows)}")
        for line in commonest(rollout.crystals[rows]):
            console.print(line)
        if ranking is not None:
            console.print(f"lowest energy above hull first: {ranking.label}, unrelaxed")
            if not self.hull:
                console.print(
                    "The demonstration hull knows few compounds, so crystals look more stable than"
                    " they are: give --hull mp-energies, or a file"
                )
            if unranked:
                console.print(f"without an energy, at the end: {unranked} ({in_words(reasons)})")
            console.print(_best(rollout.crystals[rows[:N_SHOWN]], energies["e_above_hull"]))
        if len(np.unique(rollout.log_weight)) > 1:
            console.print(
                f"effective sample size: {rollout.effective_size:.1f} of {n} (the file has "
                "the samples' weights, for averages over the model's distribution of such crystals)"
            )

    def _asked(self) -> tuple[list[Condition], int]:
        """The conditions, and the number of samples of each, in a row."""
        from crystaljax.conditions import Condition, chemical_system, element_names
        from crystaljax.data.condition_files import read_conditions
        from crystaljax.symmetry.settings import group_number

        n = self.n if self.n is not None else 1 if self.conditions else 100
        if n < 1:
            raise ValueError(f"--n {n}: give at least 1")
        elements, required = map(element_names, (self.elements, self.required))
        if self.chemical_system:
            if elements or required:
                raise ValueError("--chemical-system says which elements: no --elements, --required")
            elements = required = chemical_system(self.chemical_system)
        wishes = self.formula, elements, required, self.space_groups, self.template
        if self.conditions is not None:
            if any(wishes):
                raise ValueError(f"--conditions {self.conditions}: say all of it in the file")
            conditions, repeat = read_conditions(self.conditions), n
        else:
            one = Condition(
                formula=self.formula,
                formula_units=(self.formula_units or None) if self.formula else None,
                elements=elements or None,
                required=required,
                space_group=tuple(map(group_number, self.space_groups)) or None,
                template=self.template or None,
            )
            conditions, repeat = [one] * min(n, MAX_SAMPLES + 1), 1
        if len(conditions) * repeat > MAX_SAMPLES:
            raise ValueError(f"--n {n}: give {MAX_SAMPLES} at most in all, other seeds for more")
        return conditions, repeat


def _best(crystals: Crystals, e_above_hull: np.ndarray) -> Table:
    """A table of the first crystals and their energies."""
    from crystaljax.composition import formulas
    from crystaljax.evaluation.summary import group_name

    table = Table("formula", "space group", "energy above hull (eV/atom)", title="the first")
    groups = crystals.to_numpy().space_group.tolist()
    for formula, group, energy in zip(formulas(crystals), groups, e_above_hull, strict=False):
        table.add_row(formula, group_name(group), f"{energy:.3f}")
    return table
