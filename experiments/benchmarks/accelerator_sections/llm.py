"""A language model of a size that fits: prefill, decoding, one step of LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from accelerator_sections.run import Budget, Found, Measurement, Run, timed
from accelerator_sections.sizes import LlmSize, Size
from accelerator_sections.tokens import NoTexts
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decode import Network, prefill
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.models.llm.memory import memory_report
from crystaljax.models.llm.work import decoding_step
from crystaljax.policies.text import TextPolicy
from crystaljax.roofline import count
from crystaljax.text.generation import GenerationConfig, Generator
from crystaljax.text.packing import Rows, TokenSequence, pack_micro_batches
from crystaljax.training.optimizer import TrainState
from crystaljax.training.sft import SftConfig, make_update

USABLE = 0.85
"""Largest share of the device's memory that a model may need by the estimate."""

SHORT = 32
"""Length of the prompts in tokens."""


def llm(run: Run, budget: Budget, size: Size) -> Iterator[Measurement]:
    """Tokens per second of the largest model that fits the memory and the time."""
    name = _largest(size, budget)
    model = _model(size.llms[name].config, jnp.dtype(size.dtype))
    add_lora(model, LoraConfig(), nnx.Rngs(1))
    policy = TextPolicy(model, NoTexts())
    title = f"{name} Llama, {size.dtype}"
    rows, length = size.sequences, size.prompt
    yield f"{title}, prefill of {rows} x {length}", partial(_prefill, run, budget, size, policy)
    yield f"{title}, decoding, {rows} at a time", partial(_decoding, run, budget, size, policy)
    yield f"{title}, LoRA step of {rows} x {length}", partial(_lora, run, budget, size, policy)


def _largest(size: Size, budget: Budget) -> str:
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    for name, each in size.llms.items():
        if each.seconds <= budget.left and (memory is None or _needs(each, size) < USABLE * memory):
            return name
    raise FileNotFoundError(f"no language model fits {memory} bytes and {budget.left:.0f} s")


def _needs(each: LlmSize, size: Size) -> int:
    """Bytes, by the package's own report."""

    def make() -> LanguageModel:
        model = LanguageModel(each.config, nnx.Rngs(0), jnp.dtype(size.dtype))
        add_lora(model, LoraConfig(), nnx.Rngs(1))
        return model

    report = memory_report(
        nnx.eval_shape(make),
        SftConfig().optimizer.build(100),
        rows=size.sequences,
        length=size.prompt,
        remat="all",
        sequences=2 * size.sequences,
        slots=size.prompt,
    )
    return report.total


def _model(config: LlmConfig, dtype: jnp.dtype) -> LanguageModel:
    """A model with random weights; the draw is compiled once per shape."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0), dtype)))

    @partial(jax.jit, static_argnames=("shape", "dtype"))
    def normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return 0.02 * jax.random.normal(key, shape, dtype)

    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(structure, drawn))


def _random_tokens(policy: TextPolicy, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, policy.config.vocabulary, shape).astype(np.int32)


def _prefill(run: Run, budget: Budget, size: Size, policy: TextPolicy) -> Found:
    network, weights = Network(policy.graph), (policy.start, policy.frozen)
    tokens = _random_tokens(policy, size.sequences, size.prompt)
    length = np.full(size.sequences, size.prompt, np.int32)

    def work() -> None:
        jax.block_until_ready(prefill(network, weights, tokens, length, None))

    timing = timed(work, budget)
    counted = count(lambda w, t, n: prefill(network, w, t, n, None), weights, tokens, length)
    note, details = run.limit(counted, timing.median)
    return Found(tokens.size / timing.median, "tokens/s", note, timing.first, None, details)


def _decoding(run: Run, budget: Budget, size: Size, policy: TextPolicy) -> Found:
    rows, new = size.sequences, size.new
    how = GenerationConfig(max_new_tokens=new, batch_size=rows)
    generator = Generator(policy.graph, how, end_tokens=())
    prompts = list(_random_tokens(policy, rows, SHORT))
    weights = (policy.start, policy.frozen)
    timing = timed(lambda: generator(weights, prompts, 0), budget, at_least=2)
    step = decoding_step(policy.graph, policy.start, policy.frozen, rows, SHORT + new)
    note, details = run.limit(step * new, timing.median)
    details |= {"step_s": timing.median / new}
    note += "; the prefill of short prompts is in it"
    return Found(rows * new / timing.median, "tokens/s", note, timing.first, None, details)


def _lora(run: Run, budget: Budget, size: Size, policy: TextPolicy) -> Found:
    config = SftConfig(batch_size=size.sequences)
    optimizer = config.optimizer.build(100)
    policy.remat = "all"
    update = make_update(policy, optimizer, config)
    state = TrainState.create(jax.tree.map(jnp.copy, policy.start), optimizer, averaged=False)
    texts = [TokenSequence(x, 1) for x in _random_tokens(policy, size.sequences, size.prompt)]
    rows = jax.device_put(pack_micro_batches([texts], (Rows(size.sequences, size.prompt),)))
    counted = count(update, state, policy.frozen, rows)

    def step() -> None:
        nonlocal state
        state, metrics = update(state, policy.frozen, rows)
        float(metrics["nll"])

    timing = timed(step, budget)
    note, details = run.limit(counted, timing.median)
    tokens = size.sequences * size.prompt
    return Found(tokens / timing.median, "tokens/s", note, timing.first, None, details)
