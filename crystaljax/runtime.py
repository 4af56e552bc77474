"""Settings made before JAX starts: memory shared with PyTorch, compiled code that is kept."""

from __future__ import annotations

import logging
import os

import jax

from crystaljax.data.files import cache_dir

log = logging.getLogger(__name__)

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
COMPILED = "JAX_COMPILATION_CACHE_DIR"


def prepare() -> None:
    """Set up JAX for a script; call it before anything is computed.

    On a GPU, JAX takes memory as it needs it, so that potentials in PyTorch have room. What XLA
    compiled is kept in the cache folder for the next run (`JAX_COMPILATION_CACHE_DIR` names
    another one). Settings made in the environment stand.
    """
    grabs = os.environ.setdefault(PREALLOCATE, "false")
    kept = os.environ.setdefault(COMPILED, str(cache_dir() / "compiled"))
    jax.config.update("jax_compilation_cache_dir", kept)
    log.debug("%s=%s, %s=%s", PREALLOCATE, grabs, COMPILED, kept)
    logging.getLogger("absl").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for Orbax's warning, at every checkpoint, of a file that it can do without."""
    return "_CHECKPOINT_METADATA" not in record.getMessage()
