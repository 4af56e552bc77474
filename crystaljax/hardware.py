"""The name of the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


@cache
def hardware() -> str:
    """The accelerators JAX computes on or, without any, the processor and its usable cores.

    Like "NVIDIA H100 80GB HBM3" or "AMD EPYC 7B13 (2 of 2 cores)". Starts JAX's backend.
    """
    import jax

    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"{_cpu_model()} ({usable_cores()} of {os.cpu_count()} cores)"
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    return f"{count}{devices[0].device_kind}"


def usable_cores() -> int:
    """Cores this process may run on, fewer than the machine's under taskset or a scheduler."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
