"""Endpoints, against a local server that answers, fails, is slow or talks nonsense."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from stub_endpoint import completion, stub_endpoint

from crystaljax.alloys.baselines.endpoint import Endpoint, EndpointConfig, Messages

pytest.importorskip("openai")
KEY = "sk-a-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def config(url: str, **options: Any) -> EndpointConfig:
    options = {"retries": 2, "timeout": 5.0, **options}
    return EndpointConfig(url, "stub", "STUB_KEY", **options)


def prompts(n: int) -> list[Messages]:
    return [[{"role": "user", "content": f"prompt {i}"}] for i in range(n)]


def echo(body: dict, _: int) -> str:
    return body["messages"][-1]["content"].upper()


def test_what_is_sent_and_answered() -> None:
    with stub_endpoint(echo) as stub:
        endpoint = Endpoint(config(stub.url, temperature=0.5, max_tokens=9))
        assert endpoint(prompts(3)) == ["PROMPT 0", "PROMPT 1", "PROMPT 2"]
    assert stub.bodies[1] == {
        "model": "stub",
        "messages": [{"role": "user", "content": "prompt 1"}],
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert stub.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (endpoint.requests, endpoint.tokens) == (3, 30)


def test_options_that_some_servers_ask_for() -> None:
    with stub_endpoint(echo) as stub:
        Endpoint(config(stub.url, temperature=None, limit_name="max_completion_tokens"))(prompts(1))
    assert "temperature" not in stub.bodies[0]
    assert "max_tokens" not in stub.bodies[0]
    assert stub.bodies[0]["max_completion_tokens"] == 1024


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_tried_again(status: int) -> None:
    with stub_endpoint(lambda body, n: status if n < 2 else echo(body, n)) as stub:
        assert Endpoint(config(stub.url))(prompts(1)) == ["PROMPT 0"]
    assert len(stub.bodies) == 3


BAD = {
    "prompt 1": 500,
    "prompt 2": b"{no json",
    "prompt 3": b'{"choices": []}',
    "prompt 4": completion(None),
    "prompt 5": 400,
    "prompt 6": b"[]",
}


def test_one_failure_never_costs_the_others() -> None:
    def respond(body: dict, n: int) -> Any:
        return BAD.get(body["messages"][-1]["content"]) or echo(body, n)

    with stub_endpoint(respond) as stub:
        replies = Endpoint(config(stub.url, retries=1)).replies(prompts(8))
    assert [reply.text for reply in replies] == ["PROMPT 0", *[None] * 6, "PROMPT 7"]
    reasons = [reply.reason or "" for reply in replies]
    assert reasons[0] == reasons[7] == ""
    assert all(reasons[1:7])
    assert "500" in reasons[1]
    assert "no text in the answer" in reasons[3]
    assert not any(KEY in reason for reason in reasons)
    assert "no, Bearer ***" in reasons[5]


def test_a_slow_answer_is_given_up() -> None:
    given_up = threading.Event()

    def respond(body: dict, n: int) -> str:
        if n == 0:
            given_up.wait()
        return echo(body, n)

    with stub_endpoint(respond) as stub:
        endpoint = Endpoint(config(stub.url, timeout=2.0, retries=0))
        replies = endpoint.replies(prompts(2))
        given_up.set()
    assert replies[0].text is None
    assert "Timeout" in str(replies[0].reason)
    assert replies[1].text == "PROMPT 1"


def test_several_at_once() -> None:
    four = threading.Barrier(4)

    def respond(body: dict, n: int) -> str:
        four.wait(60)
        return echo(body, n)

    with stub_endpoint(respond) as stub:
        answers = Endpoint(config(stub.url, at_once=4, timeout=120.0))(prompts(8))
    assert answers == [f"PROMPT {i}" for i in range(8)]
    assert stub.most_running == 4


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_budget_of_requests(at_once: int) -> None:
    with stub_endpoint(echo) as stub:
        endpoint = Endpoint(config(stub.url, max_requests=5, at_once=at_once))
        replies = endpoint.replies(prompts(8))
        assert len(stub.bodies) == 5
        assert endpoint(prompts(1)) == [None]
    assert [reply.text is None for reply in replies] == [False] * 5 + [True] * 3
    assert replies[-1].reason == "the budget of 5 requests is used up"


@pytest.mark.parametrize(("usage", "n"), [(True, 3), (False, 5)])
def test_a_budget_of_tokens(usage: bool, n: int) -> None:
    """10 tokens each as the server counts; 16 characters are 5 where it does not."""
    with stub_endpoint(echo) as stub:
        stub.usage = usage
        replies = Endpoint(config(stub.url, max_total_tokens=25)).replies(prompts(8))
    assert len(stub.bodies) == n
    assert replies[n].reason == "the budget of 25 tokens is used up"


def test_goes_on_after_an_interruption(tmp_path: Path) -> None:
    """Equal prompts have answers of their own, failures are asked again, budgets go on."""
    journal = tmp_path / "answers.jsonl"
    asked = [*prompts(2), *prompts(2), *prompts(1)]
    with stub_endpoint(lambda _, n: 400 if n == 1 else f"answer {n}") as stub:
        first = Endpoint(config(stub.url, journal=journal, max_requests=3))(asked)
    assert first == ["answer 0", None, "answer 2", None, None]
    with stub_endpoint(lambda _, n: f"later {n}") as stub:
        endpoint = Endpoint(config(stub.url, journal=journal, max_requests=10))
        assert endpoint(asked) == ["answer 0", "later 0", "answer 2", "later 1", "later 2"]
        assert endpoint.requests == 6
        assert endpoint(prompts(1)) == ["later 3"]
    with stub_endpoint(lambda *_: 500) as stub:
        again = Endpoint(config(stub.url, journal=journal))
        assert again(asked) == ["answer 0", "later 0", "answer 2", "later 1", "later 2"]
        assert not stub.bodies
    assert KEY not in journal.read_text()
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 1 + 7
    with pytest.raises(ValueError, match="journal of something else"):
        Endpoint(config(stub.url, journal=journal, temperature=0.1))


def test_a_server_that_fails_always_is_left_alone() -> None:
    with stub_endpoint(lambda *_: 500) as stub:
        replies = Endpoint(config(stub.url, retries=0, most_failures=3)).replies(prompts(9))
    assert len(stub.bodies) == 3
    assert replies[-1].reason == "3 requests in a row failed"


def test_no_server() -> None:
    with stub_endpoint(echo) as stub:
        pass
    replies = Endpoint(config(stub.url, retries=0, most_failures=2)).replies(prompts(3))
    assert "APIConnectionError" in str(replies[0].reason)
    assert replies[2].text is None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_that_is_refused(status: int, tmp_path: Path) -> None:
    """What was answered before is kept."""
    journal = tmp_path / "answers.jsonl"
    with stub_endpoint(lambda _, n: status if n else "yes") as stub:
        endpoint = Endpoint(config(stub.url, journal=journal))
        with pytest.raises(ValueError, match="refuses the key in STUB_KEY, or has no model") as e:
            endpoint(prompts(5))
    assert KEY not in str(e.value)
    assert len(stub.bodies) == 2
    assert "yes" in journal.read_text()


def test_wrong_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="needs the name of a model"):
        Endpoint(EndpointConfig())
    with pytest.raises(ValueError, match="at_once and most_failures"):
        Endpoint(config("http://127.0.0.1:1/v1", at_once=0))
    monkeypatch.delenv("STUB_KEY")
    with pytest.raises(ValueError, match="environment variable STUB_KEY, which is not set"):
        Endpoint(config("http://127.0.0.1:1/v1"))
