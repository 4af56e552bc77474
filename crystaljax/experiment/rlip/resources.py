"""Memory that RLIP takes with a language model, and the GPU hours that it takes at the least."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
    policy: Any, sampling: SamplingConfig, n_parts: int, config: RlipConfig, n_examined: int
) -> list[Table]:
    """Tables of memory and hours; none for a policy that is no language model.

    Its arrays may be shapes alone: nothing is computed.

    Args:
      n_parts: micro-batches of an update.
      n_examined: samples of the evaluations of a run.
    """
    texts = getattr(policy, "texts", None)
    if texts is None:
        return []
    slots = 2 * (sampling.max_new_tokens or policy.metadata.max_new_tokens)
    sizes = sampling.batch_size, n_parts, slots
    return [_memory(texts, config, *sizes), _hours(texts, config, *sizes, n_examined)]


def _memory(texts: Any, config: RlipConfig, sampled: int, n_parts: int, slots: int) -> Table:
    # Only here: the Wyckoff transformer does without the packages of language models.
    from crystaljax.models.llm.memory import memory_report

    report = memory_report(
        nnx.eval_shape(texts.network, texts.start, texts.frozen),
        config.optimizer.build(1),
        n_parts=n_parts,
        rows=-(-2 * config.batch_size // n_parts),
        length=slots,
        remat=texts.remat,
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


def _hours(
    texts: Any, config: RlipConfig, sampled: int, n_parts: int, slots: int, n_examined: int
) -> Table:
    # Only here: the Wyckoff transformer does without the packages of language models.
    from crystaljax.models.llm.work import decoding_step

    new = slots // 2
    step = decoding_step(texts.graph, texts.start, texts.frozen, sampled, slots)
    sampling, examining = (
        step * (-(-n_texts // sampled) * new) for n_texts in (config.n_samples, n_examined)
    )
    n, updates = config.n_iterations, -(-config.n_samples // (2 * config.batch_size))
    score, update = (f(texts, config, n_parts, slots) for f in (_score, _update))
    phases = [  # with the number of times that a run has each
        (f"sampling of an iteration ({config.n_samples} texts of {new} tokens)", n, sampling),
        ("their probabilities under the model and the base", n, score * (2 * updates)),
        (f"DPO on {PAIRS} pairs", n, update * (config.epochs * PAIRS / config.batch_size)),
        (f"sampling of the evaluations ({n_examined} texts)", 1, examining),
    ]
    rows = {name: _numbers(work) for name, _, work in phases}
    rows[f"whole run: {n} iterations with {PAIRS} pairs each, and evaluations"] = np.sum(
        [times * _numbers(work) for _, times, work in phases], axis=0
    )
    return Table(
        "Products of matrices, and hours of one H100 at its peaks (989 TFLOP/s in bfloat16, 3.35"
        " TB/s): the least that they can take, texts of full length; energies are not counted",
        [
            ["", "10¹⁵ operations", "TB", "hours"],
            *([name, *(f"{x:.3g}" for x in numbers)] for name, numbers in rows.items()),
        ],
    )


def _numbers(work: Work) -> np.ndarray:
    """float64 [3]: 10¹⁵ operations, TB and hours."""
    return np.array([work.total_flops / 1e15, work.bytes / 1e12, hours(work)])


def hours(work: Work) -> float:
    """Hours of the slower of arithmetic and memory at the peaks."""
    return max(work.total_flops / FLOPS, work.bytes / BANDWIDTH) / 3600


def _rows(config: RlipConfig, n_parts: int, slots: int) -> tuple[TextRows, ...]:
    """The texts of an update: pairs of full length, half of each text a prompt."""
    n = 2 * config.batch_size // n_parts
    shape = (n_parts, n, slots)
    each = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], shape)
    ones, place = np.ones(shape, np.int32), np.broadcast_to(np.arange(slots, dtype=np.int32), shape)
    return (TextRows(ones, place, ones, each, place > slots // 2),)


def _log_probs(texts: Any, config: RlipConfig, n_parts: int) -> Any:
    return partial(texts.log_probs, n_samples=2 * config.batch_size // n_parts)


def _score(texts: Any, config: RlipConfig, n_parts: int, slots: int) -> Work:
    """Log-probabilities of the texts of an update."""
    part = jax.tree.map(lambda x: x[0], _rows(config, n_parts, slots))
    log_probs = _log_probs(texts, config, n_parts)
    return count(log_probs, texts.start, texts.frozen, part) * n_parts


def _update(texts: Any, config: RlipConfig, n_parts: int, slots: int) -> Work:
    """One update by DPO, without the log-probabilities under the reference."""
    rows, optimizer = _rows(config, n_parts, slots), config.optimizer.build(1)
    state = jax.eval_shape(lambda x: TrainState.create(x, optimizer, averaged=False), texts.start)
    log_probs = _log_probs(texts, config, n_parts)
    update = make_loss_update(log_probs, optimizer, pair_loss(config), 0.0)
    reference = jax.ShapeDtypeStruct(rows[0].tokens.shape[:2], jnp.float32)
    return count(update, state, texts.frozen, rows, reference)
