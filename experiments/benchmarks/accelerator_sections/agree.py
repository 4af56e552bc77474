"""Agreement of every compiled step with the CPU, or of two ways to the same on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from accelerator_sections.agreement import TOLERANCES, Mode, Results, compare
from accelerator_sections.checks import CHECKS, Check, DType
from accelerator_sections.run import Budget, Found, Measurement, Run
from crystaljax.crystal import Crystals

EXPECTED = Path(__file__).with_name("expected.npz")
"""What a CPU found, in float32."""

DEFAULT_TOO = ("likelihood", "Llama logits")
"""Checks that run as JAX multiplies float32 by default as well, which differs on GPUs alone."""


FLOAT32_ONLY = ("crystals to cells", "sampling", "decoding with a cache", "GRPO update")
"""Checks of what has one type, whose tokens change with the rounding, or that compile much the
same as others."""

POTENTIAL = "Nequix"
"""Begins the names of checks of weights, one a file."""


def agree(
    run: Run, budget: Budget, crystals: Crystals, potential: Path | None = None
) -> Iterator[Measurement]:
    """All checks in full precision, then in bfloat16, some by default."""
    del run, budget
    checks, absent = checks_of(potential)
    stored = read_expected()
    for name, error in absent.items():
        yield name, partial(_raise, error)
    modes: tuple[Mode, ...] = ("full", "bfloat16")
    for mode in modes:
        for name, check in checks.items():
            if mode == "bfloat16" and (name in FLOAT32_ONLY or name.startswith(POTENTIAL)):
                continue
            yield f"{name}, {mode}", partial(_agreement, name, check, crystals, mode, stored)
    if jax.default_backend() != "cpu":
        for name in DEFAULT_TOO:
            if name in checks:
                check = checks[name]
                measure = partial(_agreement, name, check, crystals, "default", stored)
                yield f"{name}, default", measure


def checks_of(potential: Path | None) -> tuple[dict[str, Check], dict[str, Exception]]:
    """The checks that can be made here, and why others cannot."""
    checks, absent = dict(CHECKS), dict[str, Exception]()
    try:
        from accelerator_sections.text_checks import TEXT_CHECKS

        checks |= TEXT_CHECKS
    except ImportError as error:
        absent["language models"] = error
    if potential is not None:
        from accelerator_sections.potential import check

        checks[f"{POTENTIAL} {potential.stem}"] = partial(check, potential)
    return checks, absent


def _raise(error: Exception) -> Found:
    raise error


def _agreement(
    name: str, check: Check, crystals: Crystals, mode: Mode, stored: Mapping[str, Results]
) -> Found:
    dtype: DType = "bfloat16" if mode == "bfloat16" else "float32"
    precision = jax.default_matmul_precision("highest")
    with precision if mode == "full" else contextlib.nullcontext():
        outcome = check(crystals, dtype)
    if isinstance(outcome, tuple):
        found, expected = outcome
    elif name not in stored:
        raise FileNotFoundError(f"no CPU results of it in {EXPECTED.name}: use --write-expected")
    else:
        found, expected = outcome, stored[name]
    comparison, tolerance = compare(found, expected), TOLERANCES[mode]
    note = f"{comparison}; tolerance {tolerance.error:.0e}"
    return Found(comparison.error, "rel. error", note, agrees=comparison.within(tolerance))


def read_expected() -> dict[str, Results]:
    """Stored results by check; none where there is no file."""
    if not EXPECTED.is_file():
        return {}
    stored: dict[str, dict[str, np.ndarray]] = {}
    with np.load(EXPECTED, allow_pickle=False) as file:
        for name in file.files:
            check, array = name.split("/")
            stored.setdefault(check, {})[array] = file[name]
    return dict(stored)


def write_expected(crystals: Crystals, potential: Path | None) -> list[str]:
    """Store what this device, which has to be a CPU, finds in full precision; names of checks.

    Results of potentials that are not given now stay. ValueError on another device.
    """
    if jax.default_backend() != "cpu":
        raise ValueError("expected results are a CPU's: run with JAX_PLATFORMS=cpu")
    checks, absent = checks_of(potential)
    if absent:
        raise next(iter(absent.values()))
    arrays = {
        f"{check}/{name}": x
        for check, results in read_expected().items()
        if check.startswith(POTENTIAL) and check not in checks
        for name, x in results.items()
    }
    for check_name, check in checks.items():
        with jax.default_matmul_precision("highest"):
            outcome = check(crystals, "float32")
        if not isinstance(outcome, tuple):
            arrays |= {f"{check_name}/{name}": x for name, x in outcome.items()}
    np.savez_compressed(EXPECTED, allow_pickle=False, **arrays)
    return list(checks)
