"""Files of safetensors. Importing this module without the extra `llm` is an ImportError."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGES = ("huggingface_hub", "transformers", "safetensors")
"""Packages of the extra `llm` that reading and writing language models needs."""

_absent = [package for package in PACKAGES if find_spec(package) is None]
if _absent:
    raise ModuleNotFoundError(
        f"language models need {', '.join(_absent)}, which is not installed: run"
        ' pip install "crystaljax[llm]"',
        name=_absent[0],
    )

import ml_dtypes  # noqa: E402, F401  (for bfloat16 in numpy)
from safetensors import SafetensorError, safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

__all__ = ["SafetensorError", "load_file", "safe_open", "save_file"]
