"""Equal cores and their cost."""

import dataclasses

import numpy as np
import pytest

from crystaljax.experiment.comparison.cores import (
    CoreConfig,
    core_of_size,
    equal_cores,
    non_embedding,
    parameters,
    require_equal,
    training_flops,
)
from crystaljax.models.llm.config import LlmConfig

SMALL_TEXT = LlmConfig(
    vocabulary=50, width=16, mlp_width=24, n_layers=2, n_heads=2, n_kv_heads=2, head_size=8
)


@pytest.mark.parametrize("core", [CoreConfig(), CoreConfig(3, 2), CoreConfig(1, 1)])
def test_cores_are_equal_in_parameters_but_tables(core: CoreConfig) -> None:
    cores = equal_cores(core, max_sites=8, max_length=256)
    sizes = non_embedding(cores.wyckoff), non_embedding(cores.text)
    assert abs(sizes[0] - sizes[1]) <= 0.03 * min(sizes)
    for name in ("n_layers", "n_heads", "head_size", "width"):
        assert getattr(cores.wyckoff, name) == getattr(cores.text, name)


def test_unequal_cores_are_an_error() -> None:
    cores = equal_cores(CoreConfig(2, 2), 8, 256)
    wider = dataclasses.replace(cores.text, mlp_width=2 * cores.text.mlp_width)
    with pytest.raises(ValueError, match="differ by more than 3%"):
        require_equal(cores._replace(text=wider))


def test_counts_are_those_of_the_arrays() -> None:
    config = SMALL_TEXT
    block = 4 * 16 * 16 + 3 * 16 * 24 + 2 * 16
    assert non_embedding(config) == 2 * block + 16
    assert sum(parameters(config).values()) == 2 * block + 16 + 50 * 16


@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_cores_come_in_sizes(n: int) -> None:
    core = core_of_size(n)
    size = non_embedding(equal_cores(core, 20, 512).text)
    assert 0.7 < size / n < 1.4
    assert 16 <= core.width / core.n_layers <= 64


def test_an_impossible_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="no core of 10 parameters"):
        core_of_size(10)


def test_cost_of_a_training_step_is_six_for_each_parameter_and_token() -> None:
    config = SMALL_TEXT
    n = non_embedding(config) + 16 * 50
    attention = 6 * 2 * 16 * (10**2 + 30**2) / 2
    assert training_flops(config, np.array([10, 30])) == pytest.approx(6 * n * 20 + attention)
