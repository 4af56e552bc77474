"""Tests of crystaljax.experiment.run_results: which runs of a study are computed."""

from __future__ import annotations

import pytest

from crystaljax.experiment.run_results import check_seeds, chosen


def test_runs_are_chosen_by_name_each_once() -> None:
    assert chosen(("base", "sft", "sft"), ()) == ["base", "sft"]
    assert chosen(("base", "sft", "joint"), ("joint", "base")) == ["base", "joint"]
    with pytest.raises(ValueError, match=r"has 'ppo', which is not compared here: .* base; sft"):
        chosen(("base", "sft"), ("sft", "ppo"))


@pytest.mark.parametrize("seeds", [(), (0, 1, 0), (-1, 2)])
def test_seeds_that_would_give_no_errors_are_refused(seeds: tuple[int, ...]) -> None:
    check_seeds((0, 2, 1))
    with pytest.raises(ValueError, match="one or more different whole numbers from 0"):
        check_seeds(seeds)
