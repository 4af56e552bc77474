"""A local server that answers as an OpenAI-compatible endpoint does, or fails as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = str | int | bytes | float
"""A text to answer with, an HTTP status to fail with, a body to send as it is, or seconds to wait
before an answer."""


class Stub:
    """What the server was asked, and what it says next."""

    def __init__(self, respond: Callable[[dict, int], Response]) -> None:
        """`respond` is given the request's body and how many requests came before."""
        self.respond = respond
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.url = ""
        self.usage = True
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()


def completion(text: Any, usage: bool = True) -> bytes:
    """The body of an answer."""
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps(body).encode()


@contextmanager
def stub_endpoint(respond: Callable[[dict, int], Response]) -> Iterator[Stub]:
    """A server while the context lasts."""
    stub = Stub(respond)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                number = len(stub.bodies)
                stub.bodies.append(body)
                stub.headers.append({k.lower(): v for k, v in self.headers.items()})
                stub.running += 1
                stub.most_running = max(stub.most_running, stub.running)
            response = stub.respond(body, number)
            if isinstance(response, float):
                time.sleep(response)
                response = "late"
            with stub.lock:
                stub.running -= 1
            status = response if isinstance(response, int) else 200
            if isinstance(response, str):
                response = completion(response, stub.usage)
            elif isinstance(response, int):
                key = self.headers["Authorization"]
                response = json.dumps({"error": {"message": f"no, {key}"}}).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(response)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(response)
            except OSError:  # the client waits no longer
                pass

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
