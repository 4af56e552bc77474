"""Rewards that worker processes can import, well-behaved and not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards import Reward, RewardBatch
from crystaljax.rewards.cache import Cached


def cell_edge(crystals: Crystals) -> RewardBatch:
    """The cell's first edge, with the process that looked at it."""
    a = np.asarray(crystals.lattice[:, 0], np.float64)
    return RewardBatch.from_values(a, {"pid": np.full(len(a), os.getpid())})


def make_cell_edge() -> Reward:
    return cell_edge


class Commands:
    """A reward of texts "what value": what happens on the way to the value.

    "ok", "exit" (code 3), "kill" (SIGKILL), "segfault", "hang", "sleep" (50 ms), "bad"
    (ValueError), "bug" (TypeError), "quit" (SystemExit), "once" (SIGKILL unless the folder has a
    file of that name), "meet" (waits for another worker that judges such an item), "wait" (until
    the folder has the file "go"), "program" (hangs in a program of its own, whose process id it
    writes to the folder). With a folder, each value judged is added to its file "log".
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def __call__(self, texts: Sequence[str]) -> RewardBatch:
        values = [self.judge(*text.split()) for text in texts]
        pids = np.full(len(texts), os.getpid())
        return RewardBatch.from_values(np.array(values), {"pid": pids})

    def judge(self, what: str, value: str) -> float:
        folder = self.folder or Path("no folder")
        if self.folder:
            with (folder / "log").open("a") as stream:
                stream.write(f"{value}\n")
        match what:
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang" | "sleep" | "meet" | "wait":
                pause(what, folder)
            case "bad":
                raise ValueError(f"{value} is bad")
            case "bug":
                raise TypeError(f"{value} met a bug")
            case "quit":
                sys.exit(f"{value} quits")
            case "once":
                mark = folder / value
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            case "program":
                command = [sys.executable, "-c", "import time; time.sleep(3600)"]
                program = subprocess.Popen(command)
                (folder / "program").write_text(str(program.pid))
                program.wait()
        return float(value)


def pause(what: str, folder: Path) -> None:
    """Wait as told."""
    match what:
        case "hang":
            time.sleep(3600)
        case "sleep":
            time.sleep(0.05)
        case "meet":
            (folder / f"met_{os.getpid()}").touch()
            while len(list(folder.glob("met_*"))) < 2:
                time.sleep(0.01)
        case "wait":
            while not (folder / "go").exists():
                time.sleep(0.01)


def make_cached_commands(folder: Path) -> Reward:
    """`Commands` with results kept in the folder's file "cache" after every two items."""
    return Cached(Commands(folder), folder / "cache", "commands", save_every=2)


def make_nothing() -> Reward:
    raise FileNotFoundError("weights.pt is absent")


def make_death() -> Reward:
    os._exit(7)


def make_slow() -> Reward:
    time.sleep(3600)
    raise AssertionError


def too_short(texts: Sequence[str]) -> RewardBatch:
    return RewardBatch.from_values(np.zeros(len(texts) - 1))


def make_too_short() -> Reward:
    return too_short  # type: ignore[return-value]


def threads_of_libraries(texts: Sequence[str]) -> RewardBatch:
    """Threads that PyTorch says it uses, and that XLA made."""
    import jax
    import jax.numpy as jnp
    import torch

    jnp.ones((512, 512)).dot(jnp.ones((512, 512))).block_until_ready()
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    eigen = sum("XLAEigen" in name for name in names)
    n = len(texts)
    return RewardBatch.from_values(
        np.full(n, float(torch.get_num_threads())),
        {"eigen": np.full(n, eigen), "platform": np.full(n, jax.default_backend())},
    )


def make_threads() -> Reward:
    return threads_of_libraries  # type: ignore[return-value]
