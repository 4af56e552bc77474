"""Compiled code is kept for the next process, where the user says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crystaljax.runtime import prepare

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


def test_checkpoints_are_read_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That of Orbax for a file that it can do without; others are shown."""
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "filters", [*logger.filters])
    prepare()
    logger.warning("Metadata file does not exist: %s", "run/_CHECKPOINT_METADATA")
    logger.warning("disk full")
    assert [x.getMessage() for x in caplog.records if x.name == "absl"] == ["disk full"]
