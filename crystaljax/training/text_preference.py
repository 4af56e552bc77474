"""Direct preference optimisation of language models on given pairs of completions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.data.files import replacing
from crystaljax.objectives import dpo
from crystaljax.policies.text import TextPolicy
from crystaljax.text.batches import TextBatches, fixed_batches
from crystaljax.text.packing import PackedTexts, TokenSequence
from crystaljax.training.fit import Track, fit
from crystaljax.training.optimizer import TrainState
from crystaljax.training.preference import DpoConfig, make_update
from crystaljax.training.sft import TextFitConfig
from crystaljax.training.tasks import Params, sequence_log_probs

log = logging.getLogger(__name__)

REFERENCE_FILE = "reference.npz"


@dataclass(frozen=True)
class TextPreferenceConfig(DpoConfig, TextFitConfig):
    """A run of DPO on given pairs."""

    n_epochs: int = 1
    """Passes through the pairs."""

    def __post_init__(self) -> None:
        DpoConfig.__post_init__(self)
        TextFitConfig.__post_init__(self)


class TokenPair(NamedTuple):
    """Two completions of a prompt."""

    chosen: TokenSequence
    rejected: TokenSequence


def save_pairs(path: Path, pairs: Sequence[TokenPair]) -> None:
    """Write pairs to an .npz file."""
    texts = [sequence for pair in pairs for sequence in pair]
    tokens = np.concatenate([tokens for tokens, _ in texts])
    ends = np.cumsum([len(tokens) for tokens, _ in texts])
    with replacing(path) as partly:
        np.savez(partly, tokens=tokens, ends=ends, n_prompt=[n for _, n in texts])


def load_pairs(path: Path) -> list[TokenPair]:
    """The pairs that `save_pairs` wrote."""
    with np.load(path) as kept:
        parts = np.split(kept["tokens"], kept["ends"][:-1])
        texts = [TokenSequence(x, int(n)) for x, n in zip(parts, kept["n_prompt"], strict=True)]
    return [TokenPair(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)]


def split_pairs(
    pairs: Sequence[TokenPair], share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (int) of the pairs to learn, and of a share of the prompts to validate with.

    No prompt is in both, unless all pairs are of one. ValueError if there are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs: one to learn and one to validate with are needed")
    number: dict[bytes, int] = {}
    prompts = [np.asarray(x.tokens[: x.n_prompt], np.int32).tobytes() for x, _ in pairs]
    group = np.array([number.setdefault(prompt, len(number)) for prompt in prompts])
    if group.max() == 0:
        group = np.arange(len(pairs))
    n_groups = int(group.max()) + 1
    n_held = min(max(1, round(share * n_groups)), n_groups - 1)
    held = np.random.default_rng(seed).permutation(n_groups)[:n_held]
    is_held = np.isin(group, held)
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


class Pairs:
    """Batches of pairs with their log-probabilities under the reference; see `fit.Data`."""

    def __init__(self, batches: TextBatches, reference: np.ndarray) -> None:
        self.batches, self.reference = batches, reference
        self.batch_size, self.steps_per_epoch = batches.batch_size, batches.steps_per_epoch

    def stream(self, first: int, last: int) -> Iterator[tuple[int, tuple[PackedTexts, Array]]]:
        """(step, (micro-batches [A, R, T], log-probabilities [A, 2 P] under the reference))."""
        for step, packed in self.batches.stream(first, last):
            chosen = self.batches.chosen(step)
            yield step, (packed, jnp.asarray(self.reference[chosen].reshape(len(chosen), -1)))

    def save_batch(self, step: int, folder: Path) -> Path:
        return self.batches.save_batch(step, folder)


def prefer_texts(
    policy: TextPolicy,
    train: Sequence[TokenPair],
    validation: Sequence[TokenPair],
    config: TextPreferenceConfig,
    folder: Path,
    track: Track,
    *,
    start: Params | None = None,
    reference: Params | None = None,
    run_id: str | None = None,
) -> TrainState:
    """Train to the end, going on from the folder's last checkpoint if there is one; see `fit.fit`.

    Args:
      train, validation: pairs.
      start: parameters to start from; the policy's own if not given.
      reference: parameters of the reference; those of the start if not given. With adapters it
        shares the frozen base, so no second copy of the weights is held. Its log-probabilities
        are computed once and kept in `folder`.
    """
    start = policy.start if start is None else start
    reference = start if reference is None else reference
    batches = TextBatches(
        train,
        config.batch_size,
        config.seed,
        policy.config.width,
        config.n_parts,
        mesh=policy.mesh,
    )
    score = make_pair_score(policy, config.batch_size // config.n_parts)
    known = cached_scores(folder / REFERENCE_FILE, score, reference, [*train, *validation])
    data = Pairs(batches, known[: len(train)])
    optimizer = config.optimizer.build(config.total_steps(batches))
    update = make_update(
        partial(policy.log_probs, n_samples=batches.n_sequences),
        optimizer,
        config,
        config.optimizer.ema_decay,
    )
    n_chosen = np.array([len(chosen.tokens) - chosen.n_prompt for chosen, _ in validation])

    def validate(state: TrainState) -> dict[str, Any]:
        logp, reference = score(state.averaged, validation), known[len(train) :]
        (chosen, rejected), (reference_chosen, reference_rejected) = logp.T, reference.T
        loss, metrics = dpo(
            *(chosen, rejected, reference_chosen, reference_rejected),
            *(config.beta, config.label_smoothing, config.anchor),
            n_chosen,
        )
        return {"loss": loss, "kl_base": (logp - reference).mean()} | metrics

    return fit(
        lambda state, batch: update(state, policy.frozen, *batch),
        policy.place(TrainState.create(start, optimizer, bool(config.optimizer.ema_decay))),
        data,
        config,
        folder,
        track,
        title="DPO",
        loss="loss",
        unit="pairs",
        identity=policy.identity,
        place=policy.place,
        validate=validate,
        run_id=run_id,
    )


def make_pair_score(policy: TextPolicy, batch_size: int) -> Any:
    """A function of parameters and N pairs: log-probabilities float32 [N, 2], chosen first."""

    @jax.jit
    def of_rows(params: Params, frozen: Any, packed: PackedTexts) -> Array:
        return sequence_log_probs(policy.log_probs(params, frozen, packed, 2 * batch_size))

    def score(params: Params, pairs: Sequence[TokenPair]) -> np.ndarray:
        texts = [sequence for pair in pairs for sequence in pair]
        logp = np.empty(len(texts), np.float32)
        sizes = 2 * batch_size, policy.config.width, policy.mesh.size
        for packed, where in fixed_batches(texts, *sizes):
            found = of_rows(params, policy.frozen, packed)
            logp[np.asarray(where)] = np.asarray(found)[: len(where)]
        return logp.reshape(-1, 2)

    return score


def cached_scores(path: Path, score: Any, params: Params, pairs: Sequence[TokenPair]) -> np.ndarray:
    """`score` of the pairs, kept in a file; ValueError if the file is of other pairs."""
    tokens = np.concatenate([tokens for pair in pairs for tokens, _ in pair])
    if path.is_file():
        with np.load(path) as kept:
            same = np.array_equal(kept["tokens"], tokens)
            if same and np.allclose(kept["logp"][:4], score(params, pairs[:4]), atol=0.05):
                log.info("log-probabilities of the reference are in %s", path)
                return kept["logp"]
        raise ValueError(
            f"{path} is of other pairs or another reference: continue with those, or in another"
            " folder"
        )
    logp: np.ndarray = score(params, pairs)
    with replacing(path) as partly:
        np.savez(partly, tokens=tokens, logp=logp)
    return logp
