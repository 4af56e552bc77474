"""Supervised fine-tuning of the study's language model on crystals of given formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crystaljax.experiment.csp.setup import CSPSetup, TextRowsConfig
from crystaljax.experiment.experiment import TrainingRun
from crystaljax.experiment.run_folder import remade
from crystaljax.parallel import MeshConfig


def teach(
    setup: CSPSetup, config: TextRowsConfig, seed: int, run: TrainingRun, folder: Path
) -> None:
    """Train on the crystals of `setup.train`, and write a model folder.

    Goes on from the run's last checkpoint. Errors: those of `experiment.sft.make_lesson` and of
    `training.sft.sft`.
    """
    # Only here: the other rows do without the packages of language models.
    from crystaljax.experiment.llm_setup import LlmSetup, TextsConfig
    from crystaljax.experiment.sft import make_lesson
    from crystaljax.text.loading import TextModelConfig

    texts = LlmSetup(
        texts=TextsConfig(
            crystals=setup.train,
            format=config.written_as,
            templates=(config.asked_by,),
            max_sites=config.max_sites,
            validation=0.05,
            seed=setup.seed,
        ),
        model=TextModelConfig(
            base=config.pretrained,
            cutting="symbols",
            dtype=setup.dtype,
            remat="all" if setup.fsdp > 1 else "products",
            mesh=MeshConfig(fsdp=setup.fsdp),
            seed=seed,
        ),
    )
    lesson = make_lesson(texts, config.sft.n_epochs)
    state = lesson.learn(replace(config.sft, seed=seed), run)
    with remade(folder) as made:
        lesson.writer.save(made, state.averaged)
