"""Journals: what is added is there again, half a line is dropped, another's file is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.alloys.journal import Journal, read_rewards, reward_entries
from crystaljax.rewards.base import RewardBatch

HEADER = {"of": "a test", "space": (1, 2)}


def test_what_is_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    Journal(path, HEADER).add([{"a": 1}, {"a": 2}])
    again = Journal(path, HEADER)
    assert again.entries == [{"a": 1}, {"a": 2}]
    again.add([{"a": 3}])
    assert Journal(path, HEADER).entries == again.entries


def test_none_is_kept() -> None:
    journal = Journal(None, HEADER)
    journal.add([{"a": 1}])
    assert journal.entries == [{"a": 1}]


def test_half_a_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, HEADER).add([{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes()[:-4])
    cut = Journal(path, HEADER)
    assert cut.entries == [{"a": 1}]
    cut.add([{"a": 4}])
    assert Journal(path, HEADER).entries == [{"a": 1}, {"a": 4}]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, HEADER)
    with pytest.raises(ValueError, match=r"of something else: of is 'a test' there and 'b' here"):
        Journal(path, {**HEADER, "of": "b"})
    for content in ("notes\n", "1\n", "no line end"):
        path.write_text(content)
        with pytest.raises(ValueError, match="is no journal"):
            Journal(path, HEADER)
        assert path.read_text() == content


numbers = st.floats(allow_infinity=False) | st.just(float("nan"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(), numbers, numbers, st.booleans()), min_size=1))
def test_rewards_are_the_same_again(tmp_path_factory, rows) -> None:  # type: ignore[no-untyped-def]
    texts, values, columns, ok = zip(*rows, strict=True)
    reasons = [None if good else "bad" for good in ok]
    rewards = RewardBatch(
        np.array(values), np.array(ok), {"x": np.array(columns)}, reasons, ~np.array(ok)
    )
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    Journal(path, HEADER).add(reward_entries(texts, rewards))
    read_texts, again = read_rewards(Journal(path, HEADER).entries)
    assert read_texts == list(texts)
    np.testing.assert_array_equal(again.value, rewards.value)
    np.testing.assert_array_equal(again.info["x"], rewards.info["x"])
    assert again.ok.tolist() == rewards.ok.tolist()
    assert again.reasons == rewards.reasons
    assert again.transient.tolist() == rewards.transient.tolist()
