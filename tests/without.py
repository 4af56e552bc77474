"""Python without some packages, as if they were not installed: `python without.py NAMES MODULE ...`

NAMES are the packages' import names, with commas; the rest is run as `python -m MODULE ...` is.
"""

import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class Without:
    """Finds what `PathFinder` finds, but for some packages."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, *arguments: Any) -> ModuleSpec | None:
        """Where a module is; None for those that are absent."""
        if name.partition(".")[0] in self.names:
            return None
        return PathFinder.find_spec(name, *arguments)

    find_distributions = staticmethod(PathFinder.find_distributions)
    invalidate_caches = staticmethod(PathFinder.invalidate_caches)


if __name__ == "__main__":
    absent, module, *sys.argv[1:] = sys.argv[1:]
    sys.meta_path[sys.meta_path.index(PathFinder)] = Without(set(absent.split(",")))
    runpy.run_module(module, run_name="__main__", alter_sys=True)
