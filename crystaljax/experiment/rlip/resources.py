"""Memory that RLIP takes with a language model, and the GPU hours that it takes at the least."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.evaluation.report import Table
from crystaljax.policies.base import SamplingConfig
from crystaljax.roofline import Work, count
from crystaljax.text.packing import TextRows
from crystaljax.training.iteration import make_loss_update
from crystaljax.training.optimizer import TrainState
from crystaljax.training.preference import pair_loss
from crystaljax.training.rlip import RlipConfig

FLOPS, BANDWIDTH = 989e12, 3.35e12
"""Operations per second of an H100 (SXM) in bfloat16 without sparsity, and bytes per second of its
memory, by NVIDIA's data sheet."""

PAIRS = 1000
"""Pairs that the hours of DPO are told for: how many there are depends on the samples."""


def resources(
    policy: Any, sampling: SamplingConfig, n_parts: int, config: RlipConfig
) -> list[Table]:
    """Tables of memory and hours; none for a policy that is no language model.

    `n_parts`: micro-batches of an update.
    """
    texts = getattr(policy, "texts", None)
    if texts is None:
        return []
    slots = 2 * (sampling.max_new_tokens or policy.metadata.max_new_tokens)
    sizes = sampling.batch_size, n_parts, slots
    return [_memory(texts, config, *sizes), _hours(texts, config, *sizes)]


def _memory(texts: Any, config: RlipConfig, sampled: int, n_parts: int, slots: int) -> Table:
    # Only here: the Wyckoff transformer does without the packages of language models.
    from crystaljax.models.llm.memory import memory_report

    report = memory_report(
        texts.model(texts.start),
        config.optimizer.build(1),
        n_parts=n_parts,
        rows=-(-2 * config.batch_size // n_parts),
        length=slots,
        remat="all",
        sequences=sampled,
        slots=slots,
    )
    lines = [[name, f"{size / 1e9:.3f}"] for name, size in report.by_purpose.items()]
    return Table(
        f"Memory of RLIP, GB (10⁹ bytes): {config.batch_size} pairs an update in {n_parts}"
        f" parts, {sampled} texts sampled at a time, {slots} tokens each with"
        " their prompts",
        [["", "GB"], *lines],
    )


def _hours(texts: Any, config: RlipConfig, sampled: int, n_parts: int, slots: int) -> Table:
    steps = -(-config.n_samples // sampled) * (slots // 2)
    # Only here: the Wyckoff transformer does without the packages of language models.
    from crystaljax.models.llm.work import decoding_step

    step = decoding_step(texts.graph, texts.start, texts.frozen, sampled, slots)
    sampling = step * steps
    learning = _update(texts, config, n_parts, slots) * (PAIRS / config.batch_size)
    works = {
        f"sampling of an iteration ({config.n_samples} texts of {slots // 2} tokens)": sampling,
        f"DPO on {PAIRS} pairs": learning,
    }
    rows = [
        [name, f"{work.total_flops / 1e15:.3g}", f"{work.bytes / 1e12:.3g}", f"{hours(work):.3g}"]
        for name, work in works.items()
    ]
    return Table(
        "Products of matrices, and hours of one H100 at its peaks (989 TFLOP/s in bfloat16, 3.35"
        " TB/s): the least that they can take, texts of full length; energies are not counted",
        [["", "10¹⁵ operations", "TB", "hours"], *rows],
    )


def hours(work: Work) -> float:
    """Hours of the slower of arithmetic and memory at the peaks."""
    return max(work.total_flops / FLOPS, work.bytes / BANDWIDTH) / 3600


def _update(texts: Any, config: RlipConfig, n_parts: int, slots: int) -> Work:
    """One update by DPO, with the pairs' log-probabilities under the reference."""
    n = 2 * config.batch_size // n_parts
    shape = (n_parts, n, slots)
    each = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], shape)
    ones, place = np.ones(shape, np.int32), np.broadcast_to(np.arange(slots, dtype=np.int32), shape)
    rows = (TextRows(ones, place, ones, each, place > slots // 2),)
    optimizer = config.optimizer.build(1)
    state = jax.eval_shape(lambda x: TrainState.create(x, optimizer, averaged=False), texts.start)

    def log_probs(params: Any, frozen: Any, part: Any) -> Any:
        return texts.log_probs(params, frozen, part, n)

    update = make_loss_update(log_probs, optimizer, pair_loss(config), 0.0)
    reference = jax.ShapeDtypeStruct(shape[:2], jnp.float32)
    learning = count(update, state, texts.frozen, rows, reference)
    first = jax.tree.map(lambda x: x[0], rows)
    return learning + count(log_probs, texts.start, texts.frozen, first) * n_parts
