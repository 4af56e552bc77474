"""Rewards that users write as a plain Python function, and that are found by name or in a file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reward, RewardBatch, register
from crystaljax.rewards.compose import Guarded
from crystaljax.structures import to_structures

Function = Callable[..., Any]


@dataclass(frozen=True)
class OfStructures:
    """A reward by a function of one pymatgen structure, the conventional cell, to a number.

    A crystal that has no structure (no atoms, no cell) is not ok. `options` go to the function.
    """

    function: Function
    options: dict[str, Any]

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        value = np.full(len(crystals), np.nan)
        structures = to_structures(crystals)
        for row, structure in enumerate(structures):
            if structure is not None:
                value[row] = _number(self.function, self.function(structure, **self.options))
        reasons = [None if structure else "no structure" for structure in structures]
        return RewardBatch.from_values(value, reasons=reasons)


@dataclass(frozen=True)
class OfCrystals:
    """A reward by a function of B `Crystals` to B numbers, or to a `RewardBatch`."""

    function: Function
    options: dict[str, Any]

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        result = self.function(crystals, **self.options)
        if isinstance(result, RewardBatch):
            return result
        value = np.asarray(result, np.float64)
        if value.shape != (len(crystals),):
            raise TypeError(
                f"{self.function.__name__} returned an array of shape {value.shape} for"
                f" {len(crystals)} crystals: return one number each"
            )
        return RewardBatch.from_values(value)


def _number(function: Function, result: Any) -> float:
    if np.ndim(result):
        raise TypeError(
            f"{function.__name__} returned {type(result).__name__}: return one number, or annotate"
            " its argument as Crystals to judge a batch at once"
        )
    return float(result)


def from_function(function: Function, **options: Any) -> Reward:
    """The reward by a user's function, whose first argument says what it judges.

    Annotated `Crystals`, it gets a batch and returns an array of one number each; otherwise it
    gets one pymatgen `Structure` and returns a number. `options` are its other arguments. An item
    for which it raises a ValueError or the like (`Guarded`) is not ok. TypeError, at once, if it
    does not take what it is to be called with.
    """
    name = getattr(function, "__name__", repr(function))
    try:
        inspect.signature(function).bind(object(), **options)
    except TypeError as error:
        raise TypeError(
            f"{name} must take a Structure or Crystals, and the options {sorted(options)}: {error}"
        ) from error
    first = next(iter(inspect.signature(function).parameters.values()))
    of_batch = first.annotation is Crystals or (
        isinstance(first.annotation, str) and first.annotation.split(".")[-1] == "Crystals"
    )
    return Guarded((OfCrystals if of_batch else OfStructures)(function, options))


def reward(name: str) -> Callable[[Function], Function]:
    """Decorator: make a function a reward known by `name`; see `from_function`.

        @reward("density")
        def density(structure):
            return structure.density

    Then `create("density")` is a reward. ValueError if the name is taken.
    """

    def decorate(function: Function) -> Function:
        def factory(**options: Any) -> Reward:
            return from_function(function, **options)

        factory.__module__ = function.__module__
        factory.__qualname__ = function.__qualname__
        register(name)(factory)
        return function

    return decorate


def load_reward(source: str, **options: Any) -> Reward:
    """The reward by a function in a Python file, given as "path/to/file.py:function".

    The file is run: load none that you do not trust. `options` as in `from_function`.
    FileNotFoundError; ValueError for a source without a function's name, or a name that the file
    does not define as a function; whatever the file raises.
    """
    path, colon, name = source.rpartition(":")
    if not colon or not name.isidentifier():
        raise ValueError(f"{source!r} names no function: write path/to/file.py:function")
    function = getattr(_run(Path(path)), name, None)
    if not callable(function):
        raise ValueError(f"{path} defines no function {name!r}")
    return from_function(function, **options)


def _run(path: Path) -> ModuleType:
    """The module of a file, under a name of its own, so that it shadows no other."""
    if not path.is_file():
        raise FileNotFoundError(f"no Python file {path}")
    name = f"_user_reward_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    spec.loader.exec_module(module)
    return module
