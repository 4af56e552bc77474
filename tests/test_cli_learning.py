"""`crystaljax finetune` and `pretrain`, from files of crystals to models that others take."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from small import SMALL
from test_cli import refused, run

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.experiment.learning import prompted_as, read_data
from crystaljax.policies.loading import load_policy
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.tracking import read_metrics

TINY = (
    *("--wyckoff.n-layers", 1, "--wyckoff.n-heads", 2, "--wyckoff.head-size", 8),
    *("--wyckoff.width", 16, "--wyckoff.embedding", 8, "--wyckoff.first-letter-hidden", 16),
    *("--wyckoff.n-von-mises", 4, "--wyckoff.n-gaussians", 2, "--wyckoff.max-sites", 6),
)


def some(least: int, most: int, n: int) -> Crystals:
    """Crystals of so many sites."""
    found = load("prototypes").crystals.to_numpy()
    n_sites = np.asarray(found.n_sites)
    rows = np.flatnonzero((n_sites >= least) & (n_sites <= most))
    return found[rows[np.linspace(0, len(rows) - 1, n).astype(int)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wyckoff transformer of six sites, 20 crystals that it can take, 3 that it cannot."""
    folder = tmp_path_factory.mktemp("learning")
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    policy.save(folder / "model", policy.init(0))
    write(some(1, 2, 20), folder / "train.csv")
    write(some(1, 3, 7), folder / "validation.csv")
    write(some(9, 20, 3), folder / "large.csv")
    write(Crystals.concatenate([some(1, 2, 20), some(9, 20, 3)]), folder / "both.csv")
    return folder


def weights(folder: Path) -> list[np.ndarray]:
    _, params = load_wyckoff(folder)
    return [np.asarray(x.get_value()) for _, x in nnx.to_flat_state(params)]


@pytest.mark.slow
def test_a_wyckoff_transformer_goes_on_learning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("finetune", "--model", folder / "model", "--train", folder / "both.csv")
    given += ("--validation", folder / "validation.csv", "--output", tmp_path / "run")
    given += ("--n-epochs", 3, "--learning-rate", 0.01)
    run(*given)
    printed = " ".join(capsys.readouterr().out.split())
    assert "The model is in" in printed
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "20 crystals" in report["notes"][0]
    assert report["provenance"]["inputs"].keys() >= {"model", "train", "validation"}
    policy, _ = load_policy(tmp_path / "run" / "model")
    assert isinstance(policy, WyckoffPolicy)
    expected = np.bincount(some(1, 2, 20).space_group, minlength=231)[1:]
    np.testing.assert_array_equal(policy.space_group_counts, expected)
    losses = read_metrics(tmp_path / "run")["validation/nll"]
    assert losses[:, 0].tolist() == [0, 1, 2, 3]
    assert losses[-1, 1] < losses[0, 1]
    step, lowest = min(losses, key=lambda row: row[1])
    assert f"Validation loss: {losses[0, 1]:.3f} nats at step 0" in printed
    assert f"at its lowest {lowest:.3f} at step {step:.0f} of 3, whose weights" in printed
    before = weights(tmp_path / "run" / "model")
    run(*given)  # nothing is left to do
    assert "going on from step 3" in capsys.readouterr().err
    for a, b in zip(before, weights(tmp_path / "run" / "model"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "other settings" in refused(capsys, *given, "--seed", 1)


def test_what_cannot_be_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("finetune", "--model", folder / "model", "--output", tmp_path / "x")
    train = ("--train", folder / "train.csv")
    assert "--lora is for language models" in refused(capsys, *given, *train, "--lora")
    assert "is for language models" in refused(capsys, *given, *train, "--lora.rank", 2)
    assert "share between 0 and 1" in refused(capsys, *given, *train, "--validation", 1.5)
    assert "no file" in refused(capsys, *given, *train, "--validation", "absent.csv")
    said = refused(capsys, *given, "--train", folder / "large.csv")
    assert "cannot take 2 (2 have more than 6 sites)" in said
    assert "old_share must be" in refused(capsys, *given, *train, "--old-share", 2)
    assert "no model" in refused(capsys, *given[:1], *train, "--model", tmp_path)
    given = ("pretrain", "--output", tmp_path / "x", *train)
    assert "--text is for language models" in refused(capsys, *given, "--text.width", 64)
    assert not (tmp_path / "x").exists()


WITHOUT_PACKAGE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "safetensors" else found(name)
from crystaljax.cli import main
main()
"""


def test_a_language_model_without_its_packages(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    command = ("finetune", "--model", tmp_path, "--train", tmp_path, "--lora")
    program = [sys.executable, "-c", WITHOUT_PACKAGE, *map(str, command)]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'safetensors, which is not installed: run pip install "crystaljax[llm]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_asked_is_drawn_as_in_a_mixture() -> None:
    data = load("prototypes")
    first, second = data[:100], data[100:400]
    old = WyckoffPolicy(SMALL, first.space_group_counts, first.element_counts, first.formula_groups)
    assert prompted_as(old, second, 1).metadata == old.metadata
    new = prompted_as(old, second, 0).metadata
    assert new.space_group_counts == second.space_group_counts.tolist()
    assert new.formula_groups == second.formula_groups
    mixed = prompted_as(old, second, 0.25)
    share = mixed.space_group_counts / mixed.space_group_counts.sum()
    expected = 0.25 * first.space_group_counts / 100 + 0.75 * second.space_group_counts / 300
    np.testing.assert_allclose(share, expected, atol=1e-5)
    assert ((share > 0) == (expected > 0)).all()
    assert mixed.element_counts is not None and mixed.formula_groups is not None
    both = first.element_counts + second.element_counts
    np.testing.assert_array_equal(mixed.element_counts > 0, both > 0)
    assert sum(map(len, mixed.formula_groups.values())) == 400
    unknown = prompted_as(WyckoffPolicy(SMALL, first.space_group_counts), second, 0.5)
    assert unknown.element_counts is None and unknown.formula_groups is None


def test_a_share_is_held_out(folder: Path) -> None:
    train, validation = read_data(str(folder / "train.csv"), "0.25", seed=3)
    assert (len(train), len(validation)) == (15, 5)
    assert not set(train.ids.tolist()) & set(validation.ids.tolist())
    other = read_data(str(folder / "train.csv"), "0.25", seed=4)[1]
    assert set(other.ids.tolist()) != set(validation.ids.tolist())


@pytest.mark.slow
def test_a_wyckoff_transformer_from_nothing(folder: Path, tmp_path: Path) -> None:
    given = ("pretrain", "--train", folder / "both.csv", "--n-epochs", 2, "--output", tmp_path)
    run(*given, *TINY)
    policy, _ = load_policy(tmp_path / "model")
    assert isinstance(policy, WyckoffPolicy)
    assert policy.max_sites == 6 and policy.space_group_counts.sum() == 18


@pytest.mark.slow
def test_language_models(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One from nothing, which is fine-tuned with adapters, which are fine-tuned in their turn."""
    pytest.importorskip("transformers")
    size = ("--text.n-layers", 1, "--text.width", 16, "--text.mlp-width", 32)
    size += ("--text.n-heads", 2, "--text.n-kv-heads", 1, "--text.head-size", 8)
    train = ("--train", folder / "train.csv", "--n-epochs", 2)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    run("pretrain", *train, "--tokenization", "wyckoff-text", *size, "--output", first)
    report = json.loads((first / "report.json").read_text())
    assert "18 texts" in report["notes"][0]
    tuned = ("finetune", *train, "--model", first / "model", "--output", second)
    assert "goes with --lora" in refused(capsys, *tuned, "--quantized", "int8")
    run(*tuned, "--lora", "--lora.rank", 2, "--lora.targets", "q_proj")
    adapter = json.loads((second / "model" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["target_modules"]) == (2, ["q_proj"])
    losses = read_metrics(second)["validation/nll"]
    assert losses[0, 0] == 0
    given = ("finetune", "--model", second / "model", "--output", third, *train)
    assert "is an adapter" in refused(capsys, *given, "--lora")
    assert "is for Wyckoff transformers" in refused(capsys, *given, "--old-share", 0.5)
    run(*given)
    policy, _ = load_policy(third / "model")
    assert policy.tokenization == "wyckoff-text"
    # A crystal of an element that the tokenizer has no token for is left out.
    crystals = some(1, 2, 20)
    other = min(set(range(60, 100)) - set(np.unique(crystals.species).tolist()))
    species = np.where(crystals.species > 0, other, 0)
    write(replace(crystals, species=species)[:3], tmp_path / "strange.csv")
    given = ("finetune", "--model", first / "model", "--train", tmp_path / "strange.csv")
    said = refused(capsys, *given, "--output", tmp_path / "fourth")
    assert "of 2 examples to learn the model cannot take 2" in said
