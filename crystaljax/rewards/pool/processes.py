"""Workers as processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from crystaljax.hardware import usable_cores
from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool.workers import (
    Died,
    Event,
    Failed,
    Holder,
    MakeReward,
    worker_environment,
)

_GRACE = 2.0  # seconds to wait for the exit code of a process that closed its pipe


class ProcessWorker:
    """A spawned process (JAX and PyTorch do not survive a fork).

    It leads a process group, so that programs the reward starts are ended with it and Ctrl-C
    reaches the parent alone; it ends by itself when the parent is gone. For POSIX systems.
    """

    def __init__(self, make_reward: bytes, threads: int) -> None:
        """Start the process; `make_reward` is pickled."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._make_reward = make_reward
        with _environment(worker_environment(threads)):
            self.process.start()
        theirs.close()

    def submit(self, items: Items) -> None:
        """Have the items judged."""
        self._send(pickle.dumps(items))

    def _send(self, payload: bytes) -> None:
        with suppress(OSError):  # the process died: `report` will say so
            self.connection.send_bytes(payload)

    def report(self) -> Event | None:
        """The next event of the process; None for its first message, which says that it listens.

        `make_reward` is sent only then: it may be large, and would block the parent earlier.
        """
        try:
            if self.connection.poll():
                if payload := self.connection.recv_bytes():
                    return pickle.loads(payload)
                self._send(self._make_reward)
                return None
        except (EOFError, OSError):
            pass
        self.process.join(_GRACE)
        code = self.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        return Died(f"worker died ({how})")

    def kill(self) -> None:
        """End the process and every program it started."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):  # it may not lead a group yet
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


class ProcessCrew:
    """Starts worker processes and listens to their pipes."""

    def __init__(self, make_reward: MakeReward, n_workers: int | None, threads: int) -> None:
        """`n_workers`: default as many as the usable cores have room for, `threads` each.

        TypeError if `make_reward` cannot be pickled.
        """
        try:
            self._make_reward = pickle.dumps(make_reward)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"make_reward cannot be sent to worker processes ({error}): give a function or"
                " class of an importable module, or a functools.partial of one with plain options"
            ) from error
        self._n_workers = n_workers or max(1, usable_cores() // threads)
        self._threads = threads

    def size(self) -> int:
        """Largest number of workers."""
        return self._n_workers

    def start(self) -> ProcessWorker:
        """A new process."""
        return ProcessWorker(self._make_reward, self._threads)

    def wait(
        self, workers: Sequence[ProcessWorker], timeout: float | None
    ) -> list[tuple[ProcessWorker, Event]]:
        """Reports of the workers, after at most `timeout` seconds."""
        sources: dict[Any, ProcessWorker] = {}
        for worker in workers:
            sources |= {worker.connection: worker, worker.process.sentinel: worker}
        ready = dict.fromkeys(sources[source] for source in connection.wait(sources, timeout))
        reports = [(worker, worker.report()) for worker in ready]
        return [(worker, event) for worker, event in reports if event is not None]

    def close(self) -> None:
        """Nothing to release: the crew holds only its workers."""


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Context with environment variables that processes started in it inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection) -> None:
    """Main function of a worker process: build the reward, judge until the pipe is closed."""
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    holder = Holder()
    with suppress(EOFError, BrokenPipeError):
        pipe.send_bytes(b"")  # says that it listens
        pipe.send_bytes(_answer(holder.build, pipe.recv_bytes()))
        while True:
            pipe.send_bytes(_answer(holder.judge, pipe.recv_bytes()))


def _answer(action: Callable[[Any], Event], payload: bytes) -> bytes:
    """The pickled result of `action` on what the parent sent, or how it failed."""
    try:
        return pickle.dumps(action(pickle.loads(payload)))
    except Exception:  # noqa: BLE001 (any exception is sent to the parent, which raises it)
        return pickle.dumps(Failed(traceback.format_exc()))


def _end_with_parent() -> None:
    """Wait for the parent to end, then end this process group, even in the middle of a task."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
