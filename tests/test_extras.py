"""Each extra may be absent: then its tests are skipped or left out, and no other is lost."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from test_packaging import FOR_USERS, PROJECT, names

TESTS = Path(__file__).parent
OF_JAX = {"ml_dtypes"}
"""Of an extra, but never absent."""

EXTRAS = sorted(FOR_USERS - {"cuda12", "cuda13", "nequix-cpu", "pyxtal"})
"""Without those that bring nothing else, or what the tests' own extra brings."""


def import_names(extra: str) -> set[str]:
    """What the packages of an extra are imported as; "test" is everyone's."""
    wanted = names(PROJECT["optional-dependencies"][extra])
    found = {
        name
        for name, distributions in packages_distributions().items()
        if wanted & {distribution.lower().replace("_", "-") for distribution in distributions}
    }
    return found - OF_JAX


@pytest.mark.slow
@pytest.mark.parametrize("extras", [*((name,) for name in EXTRAS), tuple(EXTRAS)], ids="-".join)
def test_the_tests_can_be_collected_without(extras: tuple[str, ...]) -> None:
    absent = set().union(*map(import_names, extras))
    if not absent:
        pytest.skip(f"{', '.join(extras)} is absent already")
    command = [sys.executable, TESTS / "without.py", ",".join(sorted(absent)), "pytest"]
    collect = ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", TESTS]
    done = subprocess.run([*command, *collect], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
