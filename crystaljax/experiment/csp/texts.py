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

    Goes on from the run's last checkpoint. Errors: those of `text.loading.load_text_policy` and of
    `training.sft.sft`.
    """
    # Only here: the other rows do without the packages of language models.
    from crystaljax.experiment.llm_setup import LlmSetup, TextsConfig, chats, written_as
    from crystaljax.experiment.texts import plain, read_texts, sequences, writer
    from crystaljax.text.loading import TextModelConfig, load_text_policy
    from crystaljax.training.sft import sft

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
    metadata = written_as(texts, anew=True)
    train, validation = read_texts(texts.texts, metadata, chats(texts.model))
    learnt = [*plain(train), *plain(validation)]
    policy = load_text_policy(texts.model, learnt, metadata.create_format())
    tokens = sequences(policy, train)
    whole = writer(policy, metadata, train, tokens)
    state = sft(
        policy,
        tokens,
        sequences(policy, validation),
        replace(config.sft, seed=seed),
        run.folder,
        run.log,
        run_id=run.run_id,
    )
    with remade(folder) as made:
        whole.save(made, state.averaged)
