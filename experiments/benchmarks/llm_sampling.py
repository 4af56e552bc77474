"""Sampling speed of a language model on one core, against `transformers.generate`.

    taskset -c 0 python experiments/benchmarks/llm_sampling.py
    python experiments/benchmarks/llm_sampling.py --size 7b --dtype bfloat16 --batch-size 64 \
        --peer none --uneven 0                                             # on a GPU

Both sample from the same random Llama, all tokens at temperature 1. They are timed in turns, in
CPU-seconds without compilation, and the median is reported. For the share of a GPU's memory
bandwidth, weights and the cache up to the last token are assumed to be read once per step.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.experiment.main import run
from crystaljax.hardware import hardware, usable_cores
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import export_model
from crystaljax.text.generation import GenerationConfig, Generator

SIZES = {
    "100m": LlmConfig(
        vocabulary=32000,
        width=768,
        mlp_width=2048,
        n_layers=12,
        n_heads=12,
        n_kv_heads=12,
        head_size=64,
        tied=True,
    ),
    "7b": LlmConfig(
        vocabulary=32000,
        width=4096,
        mlp_width=11008,
        n_layers=32,
        n_heads=32,
        n_kv_heads=32,
        head_size=128,
        tied=False,
    ),
}

BANDWIDTH = {"A100": 2.04e12, "H100": 3.35e12, "H200": 4.8e12, "L4": 3.0e11}
"""Bytes per second of the memory of GPUs, by a part of their names (their makers' data sheets)."""


@dataclass(frozen=True)
class Config:
    """Tokens per CPU-second, or per second on an accelerator."""

    size: Literal["100m", "7b"] = "100m"
    """Size of the model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and activations."""
    batch_size: int = 16
    """Sequences sampled at a time."""
    prompt: int = 32
    """Tokens of a prompt."""
    new: int = 64
    """Tokens sampled."""
    peer: Literal["transformers", "none"] = "transformers"
    """Samplers to compare with."""
    uneven: int = 64
    """Number of sequences of 8 to 128 tokens (log-uniform), to compare sampling with refilled rows
    to sampling batch by batch. 0: no comparison."""
    repeats: int = 3
    """Number of timed runs of each."""


def main(config: Config) -> None:
    shape, dtype = SIZES[config.size], jnp.dtype(config.dtype)
    model = nnx.jit(lambda: LanguageModel(shape, nnx.Rngs(0), dtype))()
    graph, weights = nnx.split(model)
    rng = np.random.default_rng(0)

    def sampler(new: int) -> Callable[[np.ndarray, np.ndarray | None], None]:
        how = GenerationConfig(max_new_tokens=new, batch_size=config.batch_size)
        generator = Generator(graph, how, end_tokens=())
        return lambda prompts, limits: consume(generator([weights], list(prompts), 0, 1, limits))

    def prompts(n: int) -> np.ndarray:
        return rng.integers(0, shape.vocabulary, (n, config.prompt))

    batch = prompts(config.batch_size)
    ours = sampler(config.new)
    tasks: dict[str, Callable[[], None]] = {"ours": lambda: ours(batch, None)}
    if config.peer == "transformers":
        tasks["transformers"] = peer(model, batch, config)
    seconds = timed(tasks, config.repeats)
    n_tokens = config.batch_size * config.new
    report: dict[str, Any] = {
        "name": "llm_sampling",
        "value": round(n_tokens / seconds["ours"], 1),
        "unit": "tokens/CPU-s" if on_cpu() else "tokens/s",
        "hardware": hardware(),
        **{
            name: getattr(config, name) for name in ("size", "dtype", "batch_size", "prompt", "new")
        },
    }
    if "transformers" in seconds:
        report["transformers"] = round(n_tokens / seconds["transformers"], 1)
        report["ratio"] = round(seconds["transformers"] / seconds["ours"], 2)
    speed = [x for name, x in BANDWIDTH.items() if name in jax.devices()[0].device_kind]
    if speed:
        least = bytes_read(config, weights) / speed[0]
        report["share_of_bandwidth_limit"] = round(least / seconds["ours"], 3)
    if config.uneven:
        lengths = rng.permutation(np.geomspace(8, 128, config.uneven).astype(int))
        many, uneven = prompts(config.uneven), sampler(128)

        def batch_by_batch() -> None:
            for i in range(0, len(many), config.batch_size):
                part = slice(i, i + config.batch_size)
                uneven(many[part], np.full(len(many[part]), lengths[part].max()))

        seconds = timed(
            {"refill": lambda: uneven(many, lengths), "batches": batch_by_batch}, config.repeats
        )
        report["uneven"] = {
            "value": round(lengths.sum() / seconds["refill"], 1),
            "batch_by_batch": round(lengths.sum() / seconds["batches"], 1),
            "ratio": round(seconds["batches"] / seconds["refill"], 2),
        }
    print(json.dumps(report))


def consume(_: object) -> None:
    """Do nothing: the timed work gives numpy arrays, so there is nothing to wait for."""


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def timed(tasks: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each task; tasks run in turns, after one run for compiling."""
    clock = time.process_time if on_cpu() else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            start = clock()
            task()
            if turn:
                seconds[name].append(clock() - start)
    return {name: float(np.median(each)) for name, each in seconds.items()}


def peer(model: LanguageModel, prompts: np.ndarray, config: Config) -> Callable[[], None]:
    """The same sampling by transformers, with the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(usable_cores())
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, folder)
        other = AutoModelForCausalLM.from_pretrained(folder, dtype=config.dtype)
    other.generation_config.eos_token_id = None
    tokens = torch.tensor(prompts)

    def sample() -> None:
        out = other.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            top_k=0,
            max_new_tokens=config.new,
            pad_token_id=0,
        )
        assert out.shape[1] == config.prompt + config.new

    return sample


def bytes_read(config: Config, weights: Any) -> int:
    """Least number of bytes of weights and cache that sampling a batch reads, without prefill."""
    shape, size = SIZES[config.size], jnp.dtype(config.dtype).itemsize
    embedding = 0 if shape.tied else shape.vocabulary * shape.width * size  # a row of it is read
    matrices = sum(x.nbytes for x in jax.tree.leaves(weights)) - embedding
    per_token = 2 * shape.n_layers * shape.n_kv_heads * shape.head_size * size
    seen = sum(config.prompt + step for step in range(config.new))
    return config.new * matrices + config.batch_size * seen * per_token


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
