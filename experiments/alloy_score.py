"""Superalloys of other models, from files, by the metrics of `alloys.py`.

    python experiments/alloy_score.py --files SFT=samples.jsonl CDVAE=crystals.csv

Texts of candidates are judged by CALPHAD. Formulas and crystals (CDVAE, Crystal-LLM) are compared
by validity, coverage and novelty, if they have only the allowed elements (section 5 of arXiv
2511.12036). Give a label more than once for files of several seeds. With --phases, OUTPUT also has
the phases of each candidate over temperature, in the form of the paper's figure 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crystaljax.alloys.composition import CompositionError, master, read_candidate
from crystaljax.alloys.dataset import candidates
from crystaljax.alloys.engines.phase_table import write_phase_table
from crystaljax.alloys.evaluation import over_seeds
from crystaljax.alloys.evaluation.metrics import (
    AlloyEvaluation,
    AlloyReference,
    evaluate_alloys,
    evaluate_mixtures,
)
from crystaljax.alloys.evaluation.outputs import Outputs, read_outputs
from crystaljax.alloys.evaluation.published import published
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.evaluation.tokens import read_element_tables
from crystaljax.alloys.family import load_family
from crystaljax.alloys.lists import load_lists
from crystaljax.alloys.reward import AlloyConfig, AlloyReward
from crystaljax.evaluation.report import Report
from crystaljax.experiment.alloys import DataConfig, data_reference
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.experiment.main import run
from crystaljax.rewards.pool import PoolConfig
from crystaljax.tracking import TrackingConfig


@dataclass(frozen=True)
class Config:
    """Read the files of several models, judge their alloys, and compare the models."""

    files: tuple[str, ...] = ()
    """LABEL=PATH of each model and seed: texts, formulas or crystals (`outputs.read_outputs`)."""
    data: DataConfig = field(default_factory=DataConfig)
    """Lists of phases. Their candidates are the reference."""
    baseline: str | None = None
    """Label of the model that win rates of the others are against."""
    reward: AlloyConfig = field(
        default_factory=lambda: AlloyConfig(pool=PoolConfig(kind="processes", n_workers=2))
    )
    """Reward of candidates. If no cache is given, results are kept in OUTPUT."""
    drift: tuple[str, ...] = ()
    """LABEL=PATH of kl_elements.csv files of runs of `alloys.py`, such as runs of different base
    models. Their drift from SFT is compared (A.6)."""
    phases: bool = False
    """Also write the phases of each candidate. They are computed again, without workers."""
    output: Path = Path("runs/alloy_score")
    """Folder of the report."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    pairs, drifts = labelled(config.files), labelled(config.drift)
    if not pairs and not drifts:
        raise ValueError("nothing to compare: give --files or --drift")
    family = load_family(config.reward.family)
    outputs = [(label, read_outputs(path, family.tags)) for label, path in pairs]
    check_kinds(outputs)
    with Experiment(config, config.output, config.tracking, "score") as experiment:
        lists = load_lists(config.data.lists)
        train, validation = candidates(lists.bcc, lists.b2, config.data.pairs)
        cache = config.reward.cache or experiment.folder / "rewards.sqlite"
        experiment.describe(lists=config.data.lists, database=config.reward.engine.database)
        found: dict[str, list[AlloyEvaluation]] = {}
        notes = []
        with AlloyReward(replace(config.reward, cache=cache)) as judge:
            lists.check(judge)
            reference = data_reference(config.data, lists, train, validation, judge)
            notes += judge.limits if any(every.texts for _, every in outputs) else []
            for number, (label, every) in enumerate(outputs):
                chosen, n_other = every.of_elements(lists.elements)
                if n_other:
                    notes.append(f"{label}: {n_other} compositions of other elements are left out.")
                found.setdefault(label, []).append(evaluation(judge, reference, chosen))
                if config.phases and chosen.texts:
                    path = experiment.folder / f"phases_{number}.csv"
                    n = write_phases(path, judge, chosen.texts)
                    notes.append(f"{path.name}: the phases of {n} candidates of {label}.")
        table = table_one(found, config.baseline)
        table.write(experiment.folder)
        proposed = {k: v for k, v in found.items() if v[0].candidates}
        sets = over_seeds.element_set_table(proposed, tags=family.tags)
        for label, evaluations in found.items():
            for n, one in enumerate(evaluations):
                summarize(experiment.main.tracker, f"{label} {n}", one)
        tables = [table.table, *published(table, family), sets] if found else []
        figures = {}
        drifted = {
            f"{label} {model}": each
            for label, path in drifts
            for model, each in read_element_tables(path).items()
        }
        if drifted:
            tables.append(over_seeds.element_divergence_table(drifted))
            drawn = over_seeds.divergence_map(drifted)
            figures["kl_models"] = drawn, "KL(model ‖ SFT) in SFT's samples"
        if len(drifted) > 1:
            first, second, *_ = drifted
            drawn = over_seeds.divergence_change_bars(drifted, first, second)
            figures["kl_change"] = drawn, f"KL of {first} less that of {second}"
        pictures = experiment.pictures(figures)
        title = "Superalloys of models, from their files"
        experiment.finish(Report(title, {}, pictures, tables, notes))


def labelled(files: Sequence[str]) -> list[tuple[str, str]]:
    """Labels and paths of LABEL=PATH; ValueError for another form."""
    pairs = [file.partition("=") for file in files]
    if wrong := [file for file, (*_, path) in zip(files, pairs, strict=True) if not path]:
        raise ValueError(f"files are LABEL=PATH, not {', '.join(wrong)}")
    return [(label, path) for label, _, path in pairs]


def check_kinds(outputs: Sequence[tuple[str, Outputs]]) -> None:
    """ValueError if a label has files of texts and others of compositions."""
    texts = {label for label, every in outputs if every.texts is not None}
    if both := sorted(texts & {label for label, every in outputs if every.texts is None}):
        raise ValueError(
            f"{', '.join(both)}: files of texts and of compositions have different metrics, and"
            " need labels of their own"
        )


def evaluation(judge: AlloyReward, reference: AlloyReference, outputs: Outputs) -> AlloyEvaluation:
    """Evaluation of texts, or of compositions."""
    if outputs.texts is not None:
        return evaluate_alloys(outputs.texts, judge.judge_texts(outputs.texts), reference)
    return evaluate_mixtures(outputs.mixtures or [], reference)


def write_phases(path: Path, judge: AlloyReward, texts: Sequence[str]) -> int:
    """Write the table of phases of the candidates among texts, each once; how many there are."""
    elements, mix_by = judge.engine.elements, judge.config.mix_by
    found = {}
    for text in texts:
        candidate, _ = read_candidate(text, elements, judge.family.tags)
        if candidate is not None:
            try:
                found[str(candidate)] = candidate, master(candidate, mix_by, judge.family.lattice)
            except CompositionError:
                continue
    table = judge.engine.equilibria(
        [mixture for _, mixture in found.values()], np.array(judge.config.temperatures)
    )
    written = [candidate for candidate, _ in found.values()]
    write_phase_table(path, written, table, judge.family.lattice)
    return len(found)


if __name__ == "__main__":
    run(main, Config)
