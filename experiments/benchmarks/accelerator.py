"""Checks an installation on the device JAX finds, and times what the package does on it.

    PYTHONPATH=. python experiments/benchmarks/accelerator.py --minutes 8

It compares every compiled step with stored results of a CPU. Then it times training, sampling, a
PPO step, a language model and, with --nequix FILE.nqx, a potential. It reports rates, shares of the
device's peaks (a matrix product and a copy, timed first), and the limiting resource. The time,
compilation included, is divided among the sections; measurements that do not fit are skipped, with
a line. Each row is printed and written to --output at once; the last line printed is the whole
report as JSON. The exit status is 1 if a comparison or a measurement fails. Peaks are those of one
device: with several, choose one (CUDA_VISIBLE_DEVICES=0).

jax, flax, optax and numpy are enough. Without other packages (qwix for quantised models, nequix)
their rows are skipped. --encode, on a machine with the whole package, turns a data set into a small
file for --crystals. --pretrain trains the published size on it in the remaining time and writes the
model to one file; --unpack turns that into a folder that `load_policy` reads.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

START = time.monotonic()

import jax  # noqa: E402 (the clock starts before what takes seconds)
from accelerator_sections import agree, crystals, peaks, ppo, pretraining, wyckoff  # noqa: E402
from accelerator_sections.run import Budget, Measurement, Run, Section  # noqa: E402
from accelerator_sections.sizes import SIZES, Size  # noqa: E402

from crystaljax.hardware import hardware  # noqa: E402

MARGIN_S = 3.0
"""Seconds reserved for writing the report."""

WEIGHTS = {
    "peaks": 2.0,
    "agreement": 12.0,
    "training": 8.0,
    "sampling": 6.0,
    "ppo": 5.0,
    "potential": 6.0,
    "llm": 12.0,
}
"""Weights of the sections for dividing the time."""

PRETRAINED = 0.6
"""Share of the time for --pretrain."""


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="for everything (default 8)")
    add("--size", choices=SIZES, help="full on an accelerator, tiny on a CPU, if not given")
    add("--sections", nargs="+", choices=WEIGHTS, default=list(WEIGHTS), help="all by default")
    add("--crystals", type=Path, default=crystals.DEFAULT, help="a file written by --encode")
    add("--nequix", type=Path, help="weights of Nequix (.nqx)")
    add("--pretrain", type=Path, metavar="MODEL.npz", help="train, and keep the model there")
    add("--output", type=Path, help="a JSON file, written again after every row")
    add("--write-expected", action="store_true", help="store this CPU's results to compare with")
    add("--encode", nargs="+", metavar="DATA", help="training data and, if separate, validation")
    add("--unpack", type=Path, metavar="MODEL.npz", help="make a model folder of it")
    add("--to", type=Path, help="where --encode or --unpack writes to")
    chosen = parser.parse_args()
    if (chosen.encode or chosen.unpack) and chosen.to is None:
        parser.error("--encode and --unpack need --to")
    if chosen.encode and len(chosen.encode) > 2:
        parser.error("--encode takes one or two data sets")
    return chosen


def main() -> int:
    asked = arguments()
    if asked.encode:
        split = crystals.encode(asked.encode, asked.to)
        print(f"{len(split.train)} crystals and {len(split.validation)} for validation: {asked.to}")
        return 0
    if asked.unpack:
        pretraining.unpack(asked.unpack, asked.to)
        print(f"load_policy({str(asked.to)!r})")
        return 0
    if asked.write_expected:
        print("\n".join(agree.write_expected(asked.nequix)))
        return 0
    split = crystals.read(asked.crystals)
    on_cpu = jax.default_backend() == "cpu"
    size_name = asked.size or ("tiny" if on_cpu else "full")
    device = about(size_name, asked.minutes)
    left = 60 * asked.minutes - MARGIN_S - (time.monotonic() - START)
    run = Run(device, Budget(left), asked.output)
    timer = run.stop_at_the_end()
    run.sections(sections(SIZES[size_name], split, asked))
    timer.cancel()
    print(run.report())
    return 1 if run.faults else 0


def about(size: str, minutes: float) -> dict[str, object]:
    """The device and the versions."""
    device = jax.devices()[0]
    versions = {"python": platform.python_version()}
    for package in ("crystaljax", "jax", "jaxlib", "flax", "optax", "numpy", "qwix", "nequix"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "hardware": hardware(),
        "platform": device.platform,
        "devices": len(jax.devices()),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "versions": versions,
        "size": size,
        "minutes": minutes,
    }


def sections(
    size: Size, split: crystals.Split, asked: argparse.Namespace
) -> dict[str, tuple[float, Section]]:
    """The chosen sections, in order, with their weights."""
    given, nequix = split.train, asked.nequix
    every: dict[str, Section] = {
        "peaks": partial(peaks.peaks, size=size),
        "agreement": partial(agree.agree, potential=nequix),
        "training": partial(wyckoff.training, size=size, crystals=given),
        "sampling": partial(wyckoff.sampling, size=size),
        "ppo": partial(ppo.ppo, size=size, weights=nequix),
        "potential": partial(_potential, size=size, weights=nequix, crystals=given),
        "llm": partial(_llm, size=size),
    }
    chosen = {name: (WEIGHTS[name], every[name]) for name in WEIGHTS if name in asked.sections}
    if asked.pretrain:
        weight = sum(x for x, _ in chosen.values()) * PRETRAINED / (1 - PRETRAINED)
        train = partial(pretraining.pretraining, size=size, split=split, to=asked.pretrain)
        chosen["pretrain"] = (weight, train)
    return chosen


def _potential(run: Run, budget: Budget, **given: Any) -> Iterator[Measurement]:
    from accelerator_sections.potential import potential

    yield from potential(run, budget, **given)


def _llm(run: Run, budget: Budget, **given: Any) -> Iterator[Measurement]:
    from accelerator_sections.llm import llm

    yield from llm(run, budget, **given)


if __name__ == "__main__":
    raise SystemExit(main())
