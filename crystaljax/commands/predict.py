"""`crystaljax predict`: formulas in, ranked structures out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from crystaljax.commands.base import Command, OfFiles, check_seed, relaxation_steps

N_SHOWN = 20
"""Rows of the table that is printed."""

WIDE = {"reasons", "space group before", "energy before", "relaxation steps", "formation energy"}
"""Columns of the report that a terminal has no room for."""


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Predict structures of formulas: sample, drop duplicates, relax, rank by energy."""

    formula: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Compositions, such as CaPd2 SrTiO3."""
    formulas: Path | None = None
    """A .csv of further formulas: column formula, and formula_units to fix their number."""
    model: Path = Path("checkpoints/wyckoff-mp20bt")
    """Folder of a Wyckoff transformer or of a language model."""
    tokenization: str = ""
    """Tokenization that the model is expected to have, as in `crystaljax sample`."""
    templates: tuple[str, ...] = ()
    """Prompt templates of a language model, by name or file, in place of its own."""
    output: Path = Path("predictions")
    """Folder for the report, tables, CIFs and a picture. A folder with other predictions is
    refused."""
    n: int = 20
    """Number of samples of each formula."""
    formula_units: int = 0
    """Number of formula units (as written) in the primitive cell. 0: any."""
    seed: int = 0
    """Random seed. The same seed gives the same samples."""
    temperature: float = 1.0
    """Sampling temperature. Below 1: likelier structures; above 1: more varied ones."""
    max_candidates: int = 8
    """Largest number of candidates from which each sample is selected."""
    grammar: bool = False
    """Language models: sample only texts that fit the grammar of the text format."""
    max_new_tokens: int = 0
    """Language models: largest number of tokens of a crystal. 0: as many as the model was made
    for."""
    batch_size: int = 256
    """Samples drawn at a time."""
    potential: str = "chgnet"
    """Interatomic potential, as in `crystaljax evaluate`. none: rank by the model's likelihood."""
    hull: str = "demonstration"
    """Convex hull, as in `crystaljax evaluate`."""
    relax: bool = False
    """Relax the structures before they are ranked. It takes seconds to minutes each."""
    relax_steps: int = 0
    """Relax, for at most this number of steps. 500 if only --relax is given."""

    def run(self, console: Console) -> None:
        from crystaljax.experiment.run_folder import open_run
        from crystaljax.policies.base import SamplingConfig
        from crystaljax.policies.loading import load_policy
        from crystaljax.prediction.files import formula_table, structure_table, write_predictions
        from crystaljax.prediction.formulas import Asked, checked, read_formulas
        from crystaljax.prediction.predict import predict
        from crystaljax.provenance import Provenance, file_digests
        from crystaljax.rewards.ehull import create_e_above_hull, hull_path
        from crystaljax.settings import plain

        steps = relaxation_steps(self.relax, self.relax_steps, self.potential)
        check_seed(self.seed)
        for name, value, least in (("n", self.n, 1), ("formula-units", self.formula_units, 0)):
            if value < least:
                raise ValueError(f"--{name} {value}: give at least {least}")
        asked = [Asked.of(name, self.formula_units or None) for name in self.formula]
        if self.formulas is not None:
            asked += read_formulas(self.formulas)
        sampling = SamplingConfig(
            temperature=self.temperature,
            max_candidates=self.max_candidates,
            grammar=self.grammar,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        policy, params = load_policy(self.model, self.tokenization, self.templates)
        asked = checked(asked, policy, sampling)
        digests = file_digests(
            {"formulas": self.formulas, "model": self.model, "hull": hull_path(self.hull)}
        )
        folder = open_run(self.output, OfFiles(self, digests), vary=("debug",))
        provenance = Provenance(plain(asdict(self)), {"sha256": digests})
        energy = None
        if self.potential != "none":
            energy = create_e_above_hull(self.potential, self.hull, steps)
        found = predict(policy, params, asked, self.n, self.seed, sampling, energy)
        if energy is not None:
            provenance.inputs["energies"] = energy.label
        report = write_predictions(found, folder)
        page = provenance.added(report).write(folder)
        whole = structure_table(found, N_SHOWN) if len(asked) == 1 else formula_table(found)
        kept = [i for i, name in enumerate(whole[0]) if name not in WIDE]
        header, *rows = ([row[i] for i in kept] for row in whole[: N_SHOWN + 1])
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for line in report.notes:
            console.print(line)
        console.print(f"The report is in {page}, all structures in {folder}")
