"""pycalphad's solver with a smaller limit of steps.

Without convergence it takes 1000 steps, about forty times as many as a usual solve. Of 3,323
converged solves in Al-Co-Cr-Ni, 15 took more than 100. Such points are instead solved from the
phases of neighbouring temperatures.
"""

from __future__ import annotations

from typing import Any

from pycalphad.core.minimizer import SystemSpecification, SystemState
from pycalphad.core.solver import Solver

MOST_STEPS = 100
"""Newton steps after which a solve has failed."""


class BoundedSolver(Solver):
    """Solver that takes at most `MOST_STEPS` steps."""

    def get_system_spec(self, composition_sets: list[Any], conditions: Any) -> SystemSpecification:
        """System to be solved."""
        found = super().get_system_spec(composition_sets, conditions)
        return _Bounded(*found.__getstate__())


class _Bounded(SystemSpecification):
    def run_loop(self, state: SystemState, max_iterations: int) -> bool:
        return bool(super().run_loop(state, min(max_iterations, MOST_STEPS)))
