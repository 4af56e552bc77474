"""Fixtures that several test modules use."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What compiles takes its time, once; and machines are busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Many tests compile the same; nothing is left in the user's cache."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder.name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data (`CRYSTALJAX_SHARED`, default ../shared); skips when absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("CRYSTALJAX_SHARED", default))
    if not path.is_dir():
        pytest.skip(f"needs the shared data folder, and {path} is absent (set CRYSTALJAX_SHARED)")
    return path
