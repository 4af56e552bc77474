"""Compares every compiled step with the CPU, or two computations of the same on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import numpy as np

from accelerator_sections.agreement import TOLERANCES, Mode, Results, compare
from accelerator_sections.checks import CHECKS, PAIRS, Check, DType, Pair
from accelerator_sections.crystals import DEFAULT, read
from accelerator_sections.run import Budget, Found, Measurement, Run
from crystaljax.crystal import Crystals

EXPECTED = Path(__file__).with_name("expected.npz")
"""Stored results of a CPU, in float32."""

DEFAULT_TOO = ("likelihood", "Llama logits")
"""Checks that also run with JAX's default precision of float32 products (lower only on GPUs)."""

FLOAT32_ONLY = ("crystals to cells", "sampling", "decoding with a cache", "GRPO update")
"""Checks not made in bfloat16: results of one type, tokens that change with rounding, or steps much
like others."""

MODES: tuple[Mode, ...] = get_args(Mode)

POTENTIAL = "Nequix"
"""Prefix of the names of checks of weights, one per file."""


class Checks(NamedTuple):
    """Checks that can be made on this machine."""

    steps: Mapping[str, Check]
    pairs: Mapping[str, Pair]
    absent: Mapping[str, ImportError]
    """Reasons that the others cannot."""


def agree(run: Run, budget: Budget, potential: Path | None = None) -> Iterator[Measurement]:
    """All checks in full precision, then in bfloat16, some by default."""
    del run, budget
    checks, crystals = checks_of(potential), read(DEFAULT).train
    stored = read_expected()
    for name, error in checks.absent.items():
        yield name, partial(_raise, error)
    for mode in MODES:
        for name, step in checks.steps.items():
            if _is_wanted(name, mode):
                expected = stored.get(name)
                yield f"{name}, {mode}", partial(_with_cpu, step, crystals, mode, expected)
        for name, pair in checks.pairs.items():
            if _is_wanted(name, mode):
                yield f"{name}, {mode}", partial(_two_ways, pair, crystals, mode)


def checks_of(potential: Path | None) -> Checks:
    """The checks that can be made on this machine."""
    steps, pairs, absent = dict(CHECKS), dict(PAIRS), dict[str, ImportError]()
    try:
        from accelerator_sections.text_checks import TEXT_CHECKS, TEXT_PAIRS

        steps |= TEXT_CHECKS
        pairs |= TEXT_PAIRS
    except ImportError as error:
        absent["language models"] = error
    if potential is not None:
        from accelerator_sections.potential import check

        steps[f"{POTENTIAL} {potential.stem}"] = partial(check, potential)
    return Checks(steps, pairs, absent)


def _is_wanted(name: str, mode: Mode) -> bool:
    if mode == "default":
        return name in DEFAULT_TOO and jax.default_backend() != "cpu"
    return mode == "full" or not (name in FLOAT32_ONLY or name.startswith(POTENTIAL))


def _raise(error: Exception) -> Found:
    raise error


def _settings(mode: Mode) -> tuple[DType, contextlib.AbstractContextManager]:
    full = jax.default_matmul_precision("highest")
    dtype: DType = "bfloat16" if mode == "bfloat16" else "float32"
    return dtype, full if mode == "full" else contextlib.nullcontext()


def _with_cpu(step: Check, crystals: Crystals, mode: Mode, expected: Results | None) -> Found:
    if expected is None:
        raise FileNotFoundError(f"no CPU results of it in {EXPECTED.name}: use --write-expected")
    dtype, precision = _settings(mode)
    with precision:
        return _found(step(crystals, dtype), expected, mode)


def _two_ways(pair: Pair, crystals: Crystals, mode: Mode) -> Found:
    dtype, precision = _settings(mode)
    with precision:
        return _found(*pair(crystals, dtype), mode)


def _found(found: Results, expected: Results, mode: Mode) -> Found:
    comparison, tolerance = compare(found, expected), TOLERANCES[mode]
    note = f"{comparison}; tolerance {tolerance.error:.0e}"
    return Found(comparison.error, "rel. error", note, agrees=comparison.within(tolerance))


def read_expected() -> dict[str, Results]:
    """Stored results by check; empty without a file."""
    if not EXPECTED.is_file():
        return {}
    stored: dict[str, dict[str, np.ndarray]] = {}
    with np.load(EXPECTED, allow_pickle=False) as file:
        for name in file.files:
            check, array = name.split("/")
            stored.setdefault(check, {})[array] = file[name]
    return dict(stored)


def write_expected(potential: Path | None) -> list[str]:
    """Store this CPU's results in full precision; returns the names of the checks.

    Stored results of potentials that are not given are kept. ValueError if this is no CPU.
    """
    if jax.default_backend() != "cpu":
        raise ValueError("expected results are a CPU's: run with JAX_PLATFORMS=cpu")
    checks, crystals = checks_of(potential), read(DEFAULT).train
    if checks.absent:
        raise next(iter(checks.absent.values()))
    arrays = {
        f"{check}/{name}": x
        for check, results in read_expected().items()
        if check.startswith(POTENTIAL) and check not in checks.steps
        for name, x in results.items()
    }
    for check, step in checks.steps.items():
        with jax.default_matmul_precision("highest"):
            results = step(crystals, "float32")
        arrays |= {f"{check}/{name}": x for name, x in results.items()}
    np.savez_compressed(EXPECTED, allow_pickle=False, **arrays)
    return list(checks.steps)
