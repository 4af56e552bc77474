"""Checkpoints: orbax directories that hold all that a run needs to go on, or a model to be used.

A run's folder holds one orbax directory per saved step; a released model is one of them with
weights only. Beside the arrays stands a JSON, `Metadata`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from crystaljax.models.wyckoff.transformer import ModelConfig

log = logging.getLogger(__name__)

METADATA_FILE = "metadata.json"
WEIGHTS = "weights"
MEMORY = "memory"

FIRST_SAVE, LONGEST_GAP = 120.0, 1800.0
"""Seconds of a run until its first checkpoint, and from one checkpoint to the next, at most."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of a released Wyckoff model."""

    model: ModelConfig
    tokenization: str
    """Name of the tokenization."""
    space_group_counts: list[int]
    """[230]: crystals of each space group in the training data, from which prompts are drawn."""
    element_counts: list[int] | None = None
    """[119]: crystals of the training data with the element of each atomic number. Folders of
    models from before it was recorded lack it."""
    formula_groups: dict[str, list[int]] | None = None
    """Space groups of the training crystals by reduced formula, of which p(space group | formula)
    is made. Where it is not recorded, the space groups of formulas are those of all crystals."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str, where: Path) -> Metadata:
        """ValueError if the text is no metadata of a model that this version knows."""
        try:
            content = json.loads(text)
            model = ModelConfig(**content.pop("model"))
            return Metadata(model=model, **content)
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{where} does not describe a Wyckoff transformer of this version ({error}): the "
                "file is damaged, or from another version of crystaljax"
            ) from error


@dataclass(frozen=True)
class About:
    """Metadata of a run in its checkpoint."""

    identity: dict[str, Any]
    """Settings that a run which resumes it must share with it: the network, its tokens."""
    run: dict[str, Any] = field(default_factory=dict)
    """Its configuration and W&B run id."""


def save_weights(folder: str | Path, weights: Any, metadata: Metadata) -> None:
    """A released model: weights and metadata in `folder`, which is made anew."""
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / WEIGHTS, _plain(weights), force=True)
    (folder / METADATA_FILE).write_text(metadata.to_json(), encoding="utf-8")


def load_metadata(folder: str | Path) -> Metadata:
    """FileNotFoundError if `folder` is no released model, ValueError if it is of another kind."""
    path = Path(folder) / METADATA_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no model in {folder} (there is no {METADATA_FILE}): give the folder of a checkpoint"
        )
    return Metadata.from_json(path.read_text(encoding="utf-8"), path)


def load_weights(folder: str | Path, template: Any) -> Any:
    """Weights of a released model in the structure of `template` (arrays or shapes).

    ValueError if the files are damaged or of another configuration.
    """
    path = Path(folder).absolute() / WEIGHTS
    return _with_structure(_restore(path, _plain(template), "copy the model again"), template)


class RunCheckpoints:
    """The checkpoints of a run that can be killed at any moment; use as a context manager.

    Args:
      folder: made if need be.
      keep: how many of the latest steps stay on disk.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._saved = self._asked = time.monotonic()
        self._patience = FIRST_SAVE

    def __enter__(self) -> RunCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The last step that was saved completely, if any."""
        return self._manager.latest_step()

    def due(self, step: int, every: int) -> bool:
        """A step that is done should be saved: one of `every`, or one before it gets too late.

        Too late is `FIRST_SAVE` after the start (or `LONGEST_GAP` after the last checkpoint), if
        the next step takes as long as the time since the last call. Call it once a step.
        """
        now = time.monotonic()
        next_one, self._asked = 2 * now - self._asked, now
        late = next_one - self._saved > self._patience
        if jax.process_count() > 1:  # all have to save together
            late = bool(multihost_utils.broadcast_one_to_all(np.array(late)))
        return step % every == 0 or late

    def save(
        self,
        step: int,
        state: Any,
        about: About,
        memory: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Start to save; a kill before it is complete leaves the checkpoint before this one.

        `memory`: arrays by name, whose shapes may differ from step to step, none of them empty.
        """
        self._saved, self._patience = time.monotonic(), LONGEST_GAP
        kept = {MEMORY: ocp.args.StandardSave(dict(memory))} if memory else {}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_plain(state)),
                metadata=ocp.args.JsonSave(dataclasses.asdict(about)),
                **kept,
            ),
        )

    def restore(self, template: Any, expected: About) -> tuple[Any, dict[str, Any]]:
        """The latest state in the structure of `template`, and the `run` part of its metadata.

        ValueError if the run in this folder has another identity, naming the difference, or if
        the checkpoint is damaged.
        """
        about, path = self.about(), self.folder / str(self.latest)
        _require_same(about.identity, expected.identity, path)
        plain = _restore(path / "state", _plain(template), self._remedy(path))
        return _with_structure(plain, template), about.run

    def memory(self) -> dict[str, np.ndarray]:
        """Memory in the latest checkpoint: as it was saved, {} if there was none.

        ValueError if it is damaged.
        """
        path = self.folder / str(self.latest) / MEMORY
        if self.latest is None or not path.exists():
            return {}
        return _restore_all(path, self._remedy(path.parent))

    def about(self) -> About:
        """Metadata in the latest checkpoint of a run; ValueError if it is damaged."""
        step = self.latest
        path = self.folder / str(step)
        try:
            saved = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )
            return About(**saved.metadata)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path / "metadata", str(error), self._remedy(path)) from error

    def _remedy(self, path: Path) -> str:
        return f"remove {path} to go on from the checkpoint before it"


def latest_step(folder: Path) -> int | None:
    """The step that a run in the folder goes on from; None if it starts anew."""
    with RunCheckpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.latest


def _require_same(saved: Mapping[str, Any], expected: Mapping[str, Any], where: Path) -> None:
    """ValueError naming what differs between two runs' identities."""
    different = [
        f"{name}: {_brief(saved.get(name))} there, {_brief(value)} here"
        for name, value in json.loads(json.dumps(expected)).items()
        if saved.get(name) != value
    ]
    if different:
        raise ValueError(
            f"the run in {where} has another configuration ({'; '.join(different)}): "
            "continue it with its own, or start in another folder"
        )


def _brief(value: Any) -> str:
    return "others" if isinstance(value, list | dict) else str(value)


def _plain(tree: Any) -> dict[str, Any]:
    """Leaves by the path of their keys, which orbax keeps without knowing our classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _with_structure(plain: Mapping[str, Any], template: Any) -> Any:
    """The inverse of `_plain`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: plain[jax.tree_util.keystr(path)], template
    )


def _restore(path: Path, template: dict[str, Any], remedy: str) -> dict[str, Any]:
    """Arrays in the shapes of the template; ValueError saying what is wrong with the files."""
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(path).item_metadata
            if saved is not None and not (different := _differences(saved, template)):
                return checkpointer.restore(path, shapes)
    except Exception as error:  # orbax raises plain Exceptions where an array cannot be read
        raise _damaged(path, str(error), remedy) from error
    if saved is None:
        raise _damaged(path, "it lists no arrays", remedy)
    raise ValueError(f"{path} is of another configuration: {different}")


def _restore_all(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Arrays by name, in the shapes that they were saved in; ValueError as of `_restore`."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(path).item_metadata
            shapes = {name: np.zeros(x.shape, x.dtype) for name, x in dict(saved).items()}
            return checkpointer.restore(path, shapes)
    except Exception as error:  # orbax raises plain Exceptions where an array cannot be read
        raise _damaged(path, str(error), remedy) from error


def _damaged(path: Path, reason: str, remedy: str) -> ValueError:
    """The error of files that cannot be read, with the part of orbax's reason that tells why."""
    reason = reason.strip().split("\n")[0].split(" See full TensorStore")[0].rstrip(".")[:200]
    return ValueError(f"the checkpoint {path} is damaged or incomplete ({reason}): {remedy}")


def _differences(saved: Mapping[str, Any], template: Mapping[str, Any]) -> str:
    """Names of arrays whose shapes differ; empty if none do."""
    different = []
    for name in sorted(template.keys() | saved.keys()):
        there = tuple(saved[name].shape) if name in saved else "nothing"
        here = tuple(np.shape(template[name])) if name in template else "nothing"
        if there != here:
            different.append(f"{name} is {there} there and {here} here")
    return "; ".join(different[:3]) + (f"; and {len(different) - 3} more" * (len(different) > 3))
