"""Checkpoints: what was saved comes back; damage and other configurations are told apart."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.training.optimizer import OptimizerConfig, TrainState

POLICY = WyckoffPolicy(SMALL, np.arange(230))


def fresh(policy: WyckoffPolicy) -> TrainState:
    """A state with random weights; the model's own ones take long to compile."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), policy.param_shapes)
    return TrainState.create(params, OptimizerConfig().build(10))


@functools.cache
def state() -> TrainState:
    return dataclasses.replace(fresh(POLICY), step=jnp.int32(5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state") / "model"
    POLICY.save(folder, state().params)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state") / "run"
    with RunCheckpoints(folder) as checkpoints:
        checkpoints.save(5, state(), About(POLICY.identity, {"wandb_run_id": "abc"}))
    return folder


def restore(folder: Path, template: Any = None, identity: dict | None = None) -> Any:
    with RunCheckpoints(folder) as checkpoints:
        return checkpoints.restore(template or state(), About(identity or POLICY.identity))


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_checkpoints_are_due_by_steps_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first before two minutes are over, if a step takes less; then every half an hour."""
    now = [1000.0]
    monkeypatch.setattr("crystaljax.checkpoints.time.monotonic", lambda: now[0])

    def due_at(seconds: list[int], every: int, saves: bool = True) -> list[int]:
        found = []
        with RunCheckpoints(tmp_path) as checkpoints:
            start = now[0]
            for step, second in enumerate(seconds, 1):
                now[0] = start + second
                if checkpoints.due(step, every):
                    found.append(second)
                    if saves:
                        checkpoints.save(step, {"w": np.zeros(2)}, About({}))
        return found

    assert due_at(list(range(30, 4000, 30)), 1000) == [120, 1920, 3720]
    assert due_at([50, 100, 150], 1000, saves=False) == [100, 150]
    assert due_at([10, 20, 30, 40], 2, saves=False) == [20, 40]
    assert due_at([300], 1000, saves=False) == [300]


def test_a_model_comes_back(model: Path) -> None:
    policy, params = load_wyckoff(model)
    assert policy.config == SMALL
    np.testing.assert_array_equal(policy.space_group_counts, np.arange(230))
    assert_same(params, state().params)


def test_the_model_that_ships_loads() -> None:
    policy, params = load_wyckoff(Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt")
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert sum(sizes) == sum(x.size for x in jax.tree.leaves(policy.param_shapes)) > 10**6


def test_a_model_is_replaced(tmp_path: Path) -> None:
    POLICY.save(tmp_path, jax.tree.map(jnp.zeros_like, state().params))
    POLICY.save(tmp_path, state().params)
    assert_same(load_wyckoff(tmp_path)[1], state().params)


def test_a_run_comes_back(run: Path) -> None:
    restored, about = restore(run)
    assert_same(restored, state())
    assert about == {"wandb_run_id": "abc"}


def test_only_the_latest_checkpoints_stay(tmp_path: Path) -> None:
    small = TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {"w": jnp.zeros(2)}, ())
    with RunCheckpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 2, 3):
            now = dataclasses.replace(small, step=jnp.int32(step))
            checkpoints.save(step, now, About(POLICY.identity))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["2", "3"]
    restored, _ = restore(tmp_path, small)
    assert int(restored.step) == 3


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest(folder: Path) -> Path:
    """The file with most of the arrays."""
    return max(folder.glob("**/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("name", ["manifest.ocdbt", "_METADATA", None])
def test_a_truncated_model(model: Path, tmp_path: Path, name: str | None) -> None:
    folder = copy(model, tmp_path / "model")
    cut(folder / "weights" / name if name else largest(folder))
    with pytest.raises(
        ValueError, match=r"model/weights is damaged.*copy the model again"
    ) as error:
        load_wyckoff(folder)
    assert "\n" not in str(error.value)
    assert "bound method" not in str(error.value)


@pytest.mark.parametrize("name", ["state/manifest.ocdbt", "metadata/metadata", None])
def test_a_truncated_run(run: Path, tmp_path: Path, name: str | None) -> None:
    folder = copy(run, tmp_path / "run")
    cut(folder / "5" / name if name else largest(folder))
    with pytest.raises(ValueError, match=r"run/5/.* is damaged.*remove .*run/5 to go on"):
        restore(folder)


def test_missing_parts(model: Path, run: Path, tmp_path: Path) -> None:
    folder = copy(model, tmp_path / "model")
    shutil.rmtree(folder / "weights")
    with pytest.raises(ValueError, match="damaged"):
        load_wyckoff(folder)
    (folder / "metadata.json").unlink()
    with pytest.raises(FileNotFoundError, match="no model in"):
        load_wyckoff(folder)
    with pytest.raises(FileNotFoundError, match=r"no model in .*nowhere"):
        load_wyckoff(tmp_path / "nowhere")
    folder = copy(run, tmp_path / "run")
    shutil.rmtree(folder / "5" / "metadata")
    with pytest.raises(ValueError, match="damaged"):
        restore(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "run"])
def test_any_truncated_file(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whatever file is cut, the arrays are those that were saved, or the damage is reported."""
    folder: Path = request.getfixturevalue(kind)
    n_damaged = 0
    for number, path in enumerate(sorted(x for x in folder.rglob("*") if x.is_file())):
        other = copy(folder, tmp_path / str(number))
        cut(other / path.relative_to(folder))
        try:
            if kind == "model":
                assert_same(load_wyckoff(other)[1], state().params)
            else:
                assert_same(restore(other)[0], state())
        except ValueError as error:
            assert "damaged" in str(error)
            n_damaged += 1
    assert n_damaged > 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["model"].update(width=32),
            "is of another configuration: .* there and .* here",
        ),
        (lambda m: m["model"].update(n_layers=3), "is of another configuration"),
        (lambda m: m["model"].update(colour="red"), "not describe .*colour"),
        (lambda m: m.pop("model"), "not describe .*model"),
        (lambda m: m.pop("tokenization"), "not describe .*tokenization"),
        (lambda m: m.update(more=1), "not describe .*more"),
    ],
)
def test_models_of_another_configuration(
    model: Path, tmp_path: Path, change: Any, message: str
) -> None:
    folder = copy(model, tmp_path / "model")
    content = json.loads((folder / "metadata.json").read_text())
    change(content)
    (folder / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_wyckoff(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": 3}', "3"])
def test_metadata_that_is_none(model: Path, tmp_path: Path, text: str) -> None:
    folder = copy(model, tmp_path / "model")
    (folder / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=r"metadata\.json does not describe"):
        load_wyckoff(folder)


def test_runs_of_another_configuration(run: Path) -> None:
    config = dataclasses.replace(SMALL, width=32, n_layers=3)
    other = WyckoffPolicy(config, np.ones(230))
    with pytest.raises(ValueError, match="another configuration") as error:
        restore(run, fresh(other), other.identity)
    for part in (
        "n_layers: 2 there, 3 here",
        "width: 16 there, 32 here",
        "space_group_counts: others there, others here",
    ):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="tokenization: wyckoff there, text here"):
        restore(run, identity=POLICY.identity | {"tokenization": "text"})


def test_a_memory_of_any_shapes_is_kept_with_the_state(tmp_path: Path) -> None:
    """Checkpoints without one, as of former versions, have an empty one."""
    arrays, about = {"w": np.zeros(2)}, About({})
    memories = [
        {},
        {"guard/names": np.frombuffer(b"NaClKBr", np.uint8), "guard/n": np.array([3], np.int32)},
        {"guard/names": np.zeros((4, 7), np.uint8), "guard/n": np.array([3, 4, 5, 6], np.int32)},
    ]
    with RunCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.memory() == {}
    for step, memory in enumerate(memories):
        with RunCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(step, arrays, about, memory)
        with RunCheckpoints(tmp_path) as checkpoints:
            found = checkpoints.memory()
            assert checkpoints.restore(arrays, about)[0]["w"].tolist() == [0, 0]
        assert found.keys() == memory.keys()
        for name, array in memory.items():
            assert isinstance(found[name], np.ndarray) and found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    (tmp_path / "2" / "memory" / "manifest.ocdbt").write_bytes(b"")
    with RunCheckpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="damaged"):
        checkpoints.memory()
