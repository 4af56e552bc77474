"""Compiled code is kept for the next process, where the user says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import jax, jax.numpy as jnp
from crystaljax.runtime import prepare
prepare()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) + 1)(jnp.ones(3)).block_until_ready()
"""


@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_compiled_code_is_kept(tmp_path: Path, chosen: str | None) -> None:
    environment = {**os.environ, "CRYSTALJAX_CACHE": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    folder = tmp_path / "cache" / "compiled"
    if chosen:
        folder = tmp_path / chosen
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)

    def kept() -> list[Path]:
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
        return sorted(path for path in folder.rglob("*-cache"))

    first = kept()
    assert first
    assert kept() == first
