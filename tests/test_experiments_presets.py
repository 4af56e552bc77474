"""The `paper` presets hold the numbers of arXiv 2504.02367, 2509.07150 and Hong et al."""

import importlib
import math
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.policies.text_metadata import is_infilling
from crystaljax.text.prompts import load_template
from crystaljax.training.optimizer import OptimizerConfig

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

REINFORCE = [
    ("rl.algorithm", "ppo", "II, appendix C"),
    ("rl.n_steps", 200, "appendix A: 100-200 steps"),
    ("rl.batch_size", 1000, "appendix A"),
    ("rl.optimizer.learning_rate", 1e-4, "appendix A"),
    ("rl.clip", 0.2, "table S1"),
    ("rl.inner_steps", 3, "table S1: PPO steps between resampling"),
    ("rl.baseline_decay", 0.95, "appendix C"),
    ("setup.n_samples", 1000, "III.A (figure 3), III.B"),
    ("setup.stability.potential", "orb:orb-v2", "appendix D"),
    ("setup.bounds.high", math.inf, "III: rewards are not bounded"),
    ("setup.sampling.temperature", 1.0, "II: samples of the policy"),
    ("setup.sampling.top_p", 1.0, "II: samples of the policy"),
]

STABILITY = [
    *REINFORCE,
    ("rl.tau", 0.1, "table S1"),
    ("setup.bounds.low", -math.inf, "III.A: rewards are not bounded"),
    ("relax.n", 10_000, "appendix A"),
    ("relax.threshold", 0.1, "appendix A"),
    ("sft.n_epochs", 55, "appendix A"),
    ("sft.batch_size", 100, "appendix A"),
    ("sft.optimizer.learning_rate", 1e-5, "appendix A"),
    ("n_per_group", 1000, "III.A (figure 4)"),
]

DIELECTRIC = [
    *REINFORCE,
    ("rl.tau", 2.0, "table S1: 2 for FoM reward"),
    ("setup.condition.space_group", 225, "III.B"),
    ("max_merit", math.inf, "III.B: rewards are not bounded"),
    ("n_best", 50, "III.B: top 50 candidates"),
    ("max_e_above_hull", 0.1, "III.B, table I"),
]

PLAID = [
    ("rlip.n_iterations", 7, "of its code; figure 3"),
    ("rlip.n_unconditional", 10_000, "appendix 7.2"),
    ("rlip.n_per_group", 1000, "appendix 7.2"),
    ("rlip.groups", (1, 15, 38, 119, 143, 194, 216), "5.1: P1, C2/c, Amm2, I-4m2, P3 ..."),
    ("rlip.thresholds.stable", 0.0, "4.2"),
    ("rlip.thresholds.metastable", 0.08, "4.2"),
    ("rlip.pairs.stable_metastable", 1, "appendix 7.2"),
    ("rlip.pairs.stable_unstable", 2, "appendix 7.2"),
    ("rlip.pairs.metastable_unstable", 2, "appendix 7.2"),
    ("rlip.pairs.acceptable_unstable", 2, "appendix 7.2: 1:2"),
    ("rlip.symprec", 0.01, "appendix 7.2"),
    ("rlip.beta", 0.1, "appendix 7.2"),
    ("rlip.epochs", 1, "appendix 7.2"),
    ("rlip.batch_size", 16, "appendix 7.2"),
    ("rlip.optimizer.learning_rate", 1e-6, "appendix 7.2"),
    ("rlip.optimizer.weight_decay", 0.0, "appendix 7.2: Adam"),
    ("rlip.temperature_step", 0.2, "figure 7"),
    ("rlip.temperature_every", 2, "figure 7"),
    ("rlip.reference", "previous", "4.2"),
    ("setup.stability.relax_steps", 500, "appendix 7.2"),
    ("setup.n_samples", 10_000, "5.1"),
    ("setup.sampling.temperature", 0.7, "of its code"),
    ("setup.quantized", "nf4", "5.1: 4 bits"),
    ("exam.n_per_group", 1000, "5.1"),
]

CSP = [
    ("setup.dtype", "bfloat16", "A.1: FSDP of the full weights"),
    ("setup.fsdp", 8, "ours: as many GPUs as one copy needs"),
    ("setup.sampling.max_new_tokens", 1024, "A.1"),
    ("setup.sampling.temperature", 1.0, "samples of the policy"),
    ("setup.fixed_units", False, "A.4: the formula alone"),
    ("setup.guards", (), "none is mentioned"),
    ("setup.train", "mp20-train", "5.1: MP-20"),
    ("texts.pretrained", "Qwen/Qwen2.5-7B-Instruct", "4"),
    ("texts.written_as", "coordinates", "A.4"),
    ("texts.asked_by", "csp_two_examples", "A.4"),
    ("reward.terms", ("total-energy",), "4: E_tot by CHGNet"),
    ("reward.ratios", "free", "5.1: atomic ratios vary"),
    ("reward.max_atoms", 20, "4"),
    ("reward.quantity.bounds.invalid", -0.1, "4"),
    ("rl.algorithm", "grpo", "4"),
    ("rl.group_size", 5, "A.1: sampled responses per prompt"),
    ("rl.batch_size", 1024 * 5, "A.1: training batch size, of prompts"),
    ("rl.n_minibatches", 1024 // 256, "A.1"),
    ("rl.inner_steps", 1, "verl's default"),
    ("rl.tau", 0.001, "A.1: low-variance KL in the loss"),
    ("rl.optimizer.learning_rate", 1e-6, "A.1"),
    ("rl.optimizer.schedule", "constant", "verl's default"),
    ("exam.relax_steps", 100, "A.2"),
]
"""Hong et al., by section."""

ADAM = [
    ("b2", 0.999, "appendix A: Adam"),
    ("weight_decay", 0.0, "appendix A: Adam, not AdamW"),
    ("clip_norm", 1.0, "table S1"),
    ("schedule", "constant", "appendix A: one learning rate"),
    ("warmup_steps", 0, "appendix A: one learning rate"),
    ("ema_decay", 0.0, "no average is mentioned"),
]

NETWORK = {
    "max_sites": 21,
    "n_von_mises": 16,
    "n_gaussians": 4,
    "first_letter_hidden": 256,
    "n_layers": 16,
    "n_heads": 16,
    "head_size": 64,
    "width": 64,
    "embedding": 32,
    "n_frequencies": 5,
    "dropout": 0.1,
}


PLAID_SFT = [
    ("setup.model.base", "Qwen/Qwen2.5-7B", "4.1"),
    ("setup.model.quantized", "nf4", "7.2: 4 bits"),
    ("setup.model.lora.rank", 8, "7.2"),
    ("setup.model.lora.alpha", 32.0, "7.2"),
    ("setup.model.lora.dropout", 0.05, "7.2"),
    ("setup.model.lora.targets", ("q_proj", "v_proj"), "its code"),
    ("setup.texts.format", "plaid", "4.3"),
    ("setup.texts.weights", (), "7.2: thirds"),
    ("setup.texts.redraw", True, "7.2: a task each time"),
    ("sft.batch_size", 16, "7.2"),
    ("sft.optimizer.learning_rate", 1e-5, "7.2"),
    ("sft.n_epochs", 10, "7.2"),
]
"""PLaID++ (arXiv 2509.07150), its fine-tuning."""


def presets(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, Any]]:
    """The presets of a script."""
    monkeypatch.setattr(sys, "path", [str(EXPERIMENTS), *sys.path])
    return importlib.import_module(name).PRESETS


@pytest.mark.parametrize(
    ("name", "table"),
    [
        *(("stability_rl", STABILITY), ("dielectric_rl", DIELECTRIC), ("plaid", PLAID)),
        ("csp", CSP),
    ],
)
def test_numbers_of_the_paper(
    name: str, table: list[tuple[str, Any, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = presets(name, monkeypatch)["paper"]
    found = {field: attrgetter(field)(config) for field, _, _ in table}
    assert found == {field: value for field, value, _ in table}
    for part in {"stability_rl": ("rl", "sft"), "dielectric_rl": ("rl",)}.get(name, ()):
        for field, value, where in ADAM:
            assert getattr(getattr(config, part).optimizer, field) == value, (part, field, where)


def test_numbers_of_plaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fine-tuning; the scripts that go on from it write and load as it does."""
    pytest.importorskip("transformers")
    _, config = presets("llm_sft", monkeypatch)["paper"]
    assert [attrgetter(field)(config) for field, _, _ in PLAID_SFT] == [
        value for _, value, _ in PLAID_SFT
    ]
    infilling, unconditional, properties = map(load_template, config.setup.texts.templates)
    assert is_infilling(infilling)
    assert not unconditional.prompt_fields and not unconditional.clauses
    assert set().union(*properties.clause_fields) == {
        *("formula", "space_group", "formation_energy_per_atom", "e_above_hull", "band_gap")
    }
    for name in ("llm_dpo", "llm_sample"):
        model = presets(name, monkeypatch)["paper"][1].setup.model
        # With an adapter to go on from, as they are to be called.
        model = replace(model, adapter="adapter")
        assert (model.base, model.quantized) == (config.setup.model.base, "nf4")


def test_the_published_network() -> None:
    config = ModelConfig()
    assert {name: getattr(config, name) for name in NETWORK} == NETWORK


def test_the_paper_s_optimizer_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer: OptimizerConfig = presets("stability_rl", monkeypatch)["paper"][1].rl.optimizer
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4))
    params = expected = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    ours = optimizer.build(600)
    state, other = ours.init(params), adam.init(params)
    rng = np.random.default_rng(0)
    for _ in range(5):
        gradient = {k: jnp.asarray(rng.normal(size=x.shape)) for k, x in params.items()}
        updates, state = ours.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        updates, other = adam.update(gradient, other, expected)
        expected = optax.apply_updates(expected, updates)
    for name, value in expected.items():
        np.testing.assert_array_equal(params[name], value)
