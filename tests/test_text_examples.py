"""JSONL files of examples: what is written comes back, and bad lines are named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystaljax.text.examples import (
    ROLES,
    Chat,
    ChatPair,
    Example,
    Pair,
    read_examples,
    read_pairs,
    write_examples,
)

text = st.text()
message = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": text})
chat = st.builds(
    lambda before, last: Chat((*before, {"role": "assistant", "content": last})),
    st.lists(message, max_size=3),
    text,
)
in_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_file
@given(st.lists(st.builds(Example, text, text) | chat, min_size=1, max_size=5))
def test_examples_come_back(tmp_path: Path, examples: list[Example | Chat]) -> None:
    write_examples(tmp_path / "a.jsonl", examples)
    assert read_examples(tmp_path / "a.jsonl") == examples


@in_one_file
@given(
    st.lists(
        st.builds(Pair, text, text, text)
        | st.builds(ChatPair, st.lists(message, min_size=1, max_size=3).map(tuple), text, text),
        min_size=1,
        max_size=5,
    )
)
def test_pairs_come_back(tmp_path: Path, pairs: list[Pair | ChatPair]) -> None:
    write_examples(tmp_path / "a.jsonl", pairs)
    assert read_pairs(tmp_path / "a.jsonl") == pairs


ASKED = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
GOOD_ANSWER, BAD_ANSWER = ({"role": "assistant", "content": x} for x in "gb")


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": ASKED, "chosen": [GOOD_ANSWER], "rejected": [BAD_ANSWER]},
        {"prompt": ASKED, "chosen": "g", "rejected": [BAD_ANSWER]},
        {"messages": ASKED, "chosen": "g", "rejected": "b"},
        {"chosen": [*ASKED, GOOD_ANSWER], "rejected": [*ASKED, BAD_ANSWER]},
        {"prompt": "u", "chosen": [*ASKED, GOOD_ANSWER], "rejected": [*ASKED, BAD_ANSWER]},
    ],
)
def test_pairs_of_messages(tmp_path: Path, line: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line))
    (pair,) = read_pairs(path)
    assert pair == ChatPair(tuple(ASKED), "g", "b")
    chosen, rejected = pair.examples()
    assert chosen == Chat((*ASKED, GOOD_ANSWER))
    assert rejected == Chat((*ASKED, BAD_ANSWER))
    assert chosen.asked == "u"


def test_a_text_prompt_before_messages(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = {"prompt": "u", "chosen": [GOOD_ANSWER], "rejected": [BAD_ANSWER]}
    path.write_text(json.dumps(line))
    assert read_pairs(path) == [ChatPair((ASKED[1],), "g", "b")]
    assert Example("u", "g").chat() == Chat((ASKED[1], GOOD_ANSWER))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"chosen": [*ASKED, GOOD_ANSWER], "rejected": [BAD_ANSWER]}, "differ before their last"),
        ({"chosen": [GOOD_ANSWER], "rejected": [BAD_ANSWER]}, '"prompt" is missing'),
        ({"prompt": ASKED, "chosen": [], "rejected": "b"}, '"chosen" must be a list with a'),
        ({"prompt": ASKED, "chosen": "g"}, '"rejected" is missing'),
        ({"prompt": ASKED, "chosen": ASKED, "rejected": ASKED}, 'of "chosen" must be the assist'),
        ({"prompt": 3, "chosen": [GOOD_ANSWER], "rejected": "b"}, '"prompt" must be a text'),
        ({"chosen": "g", "rejected": "b"}, '"prompt" is missing'),
    ],
)
def test_bad_pairs(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(ValueError, match=f"line 1: .*{message}"):
        read_pairs(path)


def test_duplicates_blank_lines_and_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = '{"prompt": "p", "completion": "c", "source": 3}'
    path.write_text(f"\ufeff{line}\n\n  \n{line}\r\n{line}", encoding="utf-8")
    assert read_examples(path) == [Example("p", "c")] * 3


GOOD = '{"prompt": "p", "completion": "c"}\n'
USER = '{"role": "user", "content": "a"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p", "completion": ', "Expecting value"),
        ("[1]", "not a JSON object but list"),
        ("3", "not a JSON object but int"),
        ('{"prompt": "p"}', "\"completion\" is missing; the fields there are: 'prompt'"),
        ("{}", '"prompt" is missing; the fields there are: none'),
        ('{"prompt": "p", "completion": null}', '"completion" must be a text, and is null'),
        ('{"prompt": 3, "completion": "c"}', '"prompt" must be a text, and is 3'),
        ('{"messages": []}', '"messages" must be a list with a message'),
        ('{"messages": "hi"}', '"messages" must be a list with a message'),
        ('{"messages": ["hi"]}', "message 0 must be an object"),
        (f'{{"messages": [{USER}, {{"role": "user"}}]}}', '"content" of message 1 is missing'),
        (
            '{"messages": [{"role": "me", "content": ""}]}',
            "the role of message 0 is 'me': give one of system,",
        ),
        (f'{{"messages": [{USER}]}}', "the last message must be the assistant's"),
        ('{"prompt": "p" "completion": "c"}', "Expecting ',' delimiter"),
        ("NaN", "not a JSON object but float"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + "\n" + line + "\n" + GOOD)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3: ") as error:
        read_examples(path)
    assert message in str(error.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b'{"prompt": "\xff", "completion": ""}')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: .*utf-8"):
        read_examples(path)


def test_a_pair_lacks_a_field(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c"}')
    with pytest.raises(ValueError, match=r'line 1: "rejected" is missing'):
        read_pairs(path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"a\.jsonl has no examples: it is empty"):
        read_examples(path)
    with pytest.raises(FileNotFoundError):
        read_pairs(tmp_path / "absent.jsonl")
