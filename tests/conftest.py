"""Fixtures that several test modules use."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What compiles takes its time, once; and machines are busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


SCRIPTS_FIRST = ("test_experiments", "test_first_steps", "test_guides", "test_scenarios")
"""Beginnings of the names of test modules that run what users run."""

NEEDED = ("transformers", "safetensors", "qwix", "torch", "peft")
"""Packages of the extras llm and oracles that tests of language models use."""

missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    collect_ignore_glob = [
        "test_experiments_llm.py",
        "test_models_llm_*",
        "test_parallel.py",
        "test_text_*",
        "test_training_sft.py",
        "test_training_text_*",
    ]


def pytest_report_header() -> list[str]:
    """Says what is left out, and why."""
    if not missing:
        return []
    return [
        f"no tests of language models: {', '.join(missing)} not installed (extras llm, oracles)"
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Several runs of CI, in environments with more and more extras, share the work."""
    parser.addoption("--passed", type=Path, help="file of passed tests, not to be run again")
    parser.addoption(
        "--until",
        type=float,
        help="Unix time from when on no further test is begun; smoke runs of scripts come first",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Many tests compile the same; nothing is left in the user's cache."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed before, and begin with scripts where time may not suffice."""
    if config.getoption("until") is not None:
        items.sort(key=lambda item: not item.path.name.startswith(SCRIPTS_FIRST))
    path = config.getoption("passed")
    if path is None or not path.exists():
        return
    passed = set(path.read_text(encoding="utf-8").splitlines())
    again = [item for item in items if item.nodeid in passed]
    items[:] = [item for item in items if item.nodeid not in passed]
    config.hook.pytest_deselected(items=again)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin too late."""
    until = item.config.getoption("until")
    if until is not None and time.time() > until:
        pytest.skip("the time for this run is over")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the test to those that passed; a line of one write, for several workers have the file."""
    outcome = yield
    report = outcome.get_result()
    path = item.config.getoption("passed")
    if path is not None and report.when == "call" and report.passed:
        with path.open("a", encoding="utf-8") as file:
            file.write(item.nodeid + "\n")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data (`CRYSTALJAX_SHARED`, default ../shared); skips when absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("CRYSTALJAX_SHARED", default))
    if not path.is_dir():
        pytest.skip(f"needs the shared data folder, and {path} is absent (set CRYSTALJAX_SHARED)")
    return path


@pytest.fixture(autouse=True)
def root_handlers() -> Iterator[None]:
    """Scripts log to the stderr of their test, which is closed after it."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before
