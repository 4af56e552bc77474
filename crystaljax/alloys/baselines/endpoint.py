"""Models behind an OpenAI-compatible endpoint, with retries, a budget and a journal."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crystaljax.alloys.journal import Entry, Journal
from crystaljax.text.tokenizer import Message

log = logging.getLogger(__name__)

Messages = Sequence[Message]
"""A chat to answer."""

_CHARACTERS = 3  # characters of a token, if a server does not count tokens


@dataclass(frozen=True)
class EndpointConfig:
    """Address, model and limits of an endpoint."""

    base_url: str = "https://api.openai.com/v1"
    """Address of the endpoint, such as http://localhost:8000/v1 for a server of your own."""
    model: str = ""
    """Name of the model at the endpoint."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key. For a server without keys set it to any text.
    """
    temperature: float | None = 1.0
    """Sampling temperature. None: the server's own, which some models require."""
    max_tokens: int = 1024
    """Largest number of tokens of an answer."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of this limit in requests to the server."""
    at_once: int = 1
    """Number of requests at the same time."""
    timeout: float = 120.0
    """Time limit of one try, in seconds."""
    retries: int = 5
    """Retries per item if the server is busy, fails or is not reachable. The waiting time doubles
    each time."""
    most_failures: int = 10
    """Number of failed requests in a row after which no more are made."""
    max_requests: int | None = None
    """Largest number of requests. Retries are not counted; requests of earlier runs in the journal
    are."""
    max_total_tokens: int | None = None
    """Number of tokens of prompts and answers after which no more requests are made; running
    requests are finished. If the server does not count tokens, three characters count as one."""
    journal: Path | None = None
    """JSONL file to which every answer is added at once. The same prompts in the same order are
    continued from it."""


class Reply(NamedTuple):
    """Reply to a prompt."""

    text: str | None
    """The answer."""
    reason: str | None
    """Reason that there is none."""


class Endpoint:
    """A model behind an endpoint; requests that failed are made again when the run is repeated."""

    def __init__(self, config: EndpointConfig) -> None:
        """ImportError without openai.

        ValueError for a missing model or key, numbers out of range, and the journal of another
        endpoint.
        """
        openai = openai_module()
        if not config.model:
            raise ValueError("the endpoint needs the name of a model")
        if config.at_once < 1 or config.most_failures < 1:
            raise ValueError("at_once and most_failures must be at least 1")
        key = os.environ.get(config.key_variable)
        if not key:
            raise ValueError(
                f"the key of {config.base_url} is read from the environment variable"
                f" {config.key_variable}, which is not set; a server without keys takes any"
            )
        self.config = config
        self._key = key
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=key,
            timeout=config.timeout,
            max_retries=config.retries,
        )
        names = ("model", "temperature", "max_tokens")
        header = {"endpoint": {name: getattr(config, name) for name in names}}
        self._journal = Journal(config.journal, header)
        self._answered = {
            (entry["prompt"], entry["time"]): entry["text"]
            for entry in self._journal.entries
            if entry["text"] is not None
        }
        self._asked: Counter[str] = Counter()
        self._row = 0  # consecutive failures

    def __call__(self, prompts: Sequence[Messages], /) -> list[str | None]:
        """Answers to B chats, None where there is none; see `replies`."""
        return [reply.text for reply in self.replies(prompts)]

    @property
    def tokens(self) -> int:
        """Tokens of all requests of the journal."""
        return sum(entry["tokens"] for entry in self._journal.entries)

    @property
    def requests(self) -> int:
        """Requests of the journal."""
        return len(self._journal.entries)

    def replies(self, prompts: Sequence[Messages]) -> list[Reply]:
        """Answers to B chats; a chat that occurs several times is asked several times.

        ValueError if the server refuses the key or does not have the model; earlier answers are in
        the journal.
        """
        names = []
        for prompt in prompts:
            digest = hashlib.sha256(json.dumps([dict(m) for m in prompt]).encode()).hexdigest()[:16]
            names.append((digest, self._asked[digest]))
            self._asked[digest] += 1
        replies = {
            n: Reply(self._answered[name], None)
            for n, name in enumerate(names)
            if name in self._answered
        }
        todo = deque(n for n in range(len(prompts)) if n not in replies)
        running: dict[Future[Entry], int] = {}
        fatal: Exception | None = None
        with ThreadPoolExecutor(self.config.at_once) as pool:
            while running or (todo and fatal is None and self._over(0) is None):
                while (
                    todo
                    and fatal is None
                    and len(running) < self.config.at_once
                    and self._over(len(running)) is None
                ):
                    n = todo.popleft()
                    running[pool.submit(self._request, prompts[n])] = n
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    n = running.pop(future)
                    try:
                        entry = future.result()
                    except _refusals(self._openai) as error:
                        fatal = error
                        continue
                    replies[n] = self._keep(names[n], entry)
        if fatal is not None:
            raise ValueError(
                f"{self.config.base_url} refuses the key in {self.config.key_variable}, or has no"
                f" model {self.config.model!r}: {self._told(fatal)}"
            )
        return [replies.get(n, Reply(None, self._over(0))) for n in range(len(prompts))]

    def _keep(self, name: tuple[str, int], entry: Entry) -> Reply:
        """Write a reply to the journal and return it."""
        self._journal.add([{"prompt": name[0], "time": name[1], **entry}])
        if entry["text"] is None:
            self._row += 1
            log.warning("%s: %s", self.config.base_url, entry["reason"])
        else:
            self._row = 0
            self._answered[name] = entry["text"]
        return Reply(entry["text"], entry["reason"])

    def _over(self, running: int) -> str | None:
        """Reason to make no more requests, given the number of running ones; None to go on."""
        config = self.config
        if config.max_requests is not None and self.requests + running >= config.max_requests:
            return f"the budget of {config.max_requests} requests is used up"
        if config.max_total_tokens is not None and self.tokens >= config.max_total_tokens:
            return f"the budget of {config.max_total_tokens} tokens is used up"
        if self._row >= config.most_failures:
            return f"{self._row} requests in a row failed"
        return None

    def _request(self, prompt: Messages) -> Entry:
        """The answer to one chat, or the reason that there is none, with the tokens used."""
        config = self.config
        options: dict[str, Any] = {config.limit_name: config.max_tokens}
        if config.temperature is not None:
            options["temperature"] = config.temperature
        messages = [dict(message) for message in prompt]
        try:
            answer = self._client.chat.completions.create(
                model=config.model, messages=messages, **options
            )
        except _refusals(self._openai):
            raise
        except (self._openai.OpenAIError, ValueError) as error:  # ValueError: no JSON
            return {"text": None, "reason": self._told(error), "tokens": 0}
        text = _text(answer)
        if text is None:
            reason = self._told(f"no text in the answer {str(answer)[:200]!r}")
            return {"text": None, "reason": reason, "tokens": _tokens(answer, messages, "")}
        return {"text": text, "reason": None, "tokens": _tokens(answer, messages, text)}

    def _told(self, error: object) -> str:
        """Message of an error, without the key, which servers may quote."""
        kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
        return f"{kind}{error}".replace(self._key, "***")[:500]


def _refusals(openai: Any) -> tuple[type[Exception], ...]:
    """Errors that every further request would raise, too."""
    return (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


def _text(answer: Any) -> str | None:
    """The text of an answer; None if it is of another form or empty."""
    try:
        text = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() else None


def _tokens(answer: Any, messages: Sequence[Message], text: str) -> int:
    """Tokens of a request and its answer."""
    counted = getattr(getattr(answer, "usage", None), "total_tokens", None)
    if isinstance(counted, int):
        return counted
    return sum(len(part) for part in (text, *(m["content"] for m in messages))) // _CHARACTERS


def openai_module() -> Any:
    """The package openai; ImportError saying how to install it."""
    try:
        import openai
    except ImportError as error:
        raise ImportError(
            'openai is not installed: run pip install "crystaljax[endpoint]"'
        ) from error
    return openai
