"""Draws of tokens: the warpers of transformers, exact distributions, log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from crystaljax.models.llm.token_sampling import LogitsWarper, draw_tokens, keep_likely
from crystaljax.models.rules import NEVER

VOCABULARY = 13

jitted, jitted_keep = jax.jit(draw_tokens), jax.jit(keep_likely)

LOGITS = hnp.arrays(
    np.float32, (3, VOCABULARY), elements=st.floats(-20, 20, width=32, allow_subnormal=False)
)


def kept(logits: np.ndarray, warper: LogitsWarper) -> np.ndarray:
    """bool [B, V]: tokens that may be drawn."""
    weight = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(jitted_keep(logits, weight, warper)) > 0


def scores(logits: np.ndarray, kept: np.ndarray) -> list[list[float]]:
    """What is kept of each row, sorted: of equally likely tokens any may be left out."""
    return [sorted(row[mask].tolist()) for row, mask in zip(logits, kept, strict=True)]


@given(LOGITS, st.integers(1, VOCABULARY + 3))
@example(np.where(np.arange(39).reshape(3, 13) == 0, -0.0, 0.0).astype(np.float32), 1)
def test_top_k_is_that_of_transformers(logits: np.ndarray, k: int) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    theirs = warpers.TopKLogitsWarper(top_k=k)(None, torch.tensor(logits)).numpy() > -np.inf
    assert (kept(logits, LogitsWarper(None, jnp.int32(k), None)) == theirs).all()


@given(LOGITS, st.floats(0.01, 0.99), st.booleans())
def test_top_p_is_that_of_transformers(logits: np.ndarray, p: float, ties: bool) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    if ties:
        logits = np.round(logits / 4)
    sums = np.cumsum(-np.sort(-np.asarray(jax.nn.softmax(logits)), axis=-1), axis=-1)
    assume((abs(sums - p) > 1e-5).all())  # elsewhere rounding decides
    theirs = warpers.TopPLogitsWarper(top_p=p)(None, torch.tensor(logits)).numpy() > -np.inf
    ours = kept(logits, LogitsWarper(None, None, jnp.float32(p)))
    assert scores(logits, ours) == scores(logits, theirs)


@given(LOGITS, st.integers(1, VOCABULARY), st.floats(0.05, 0.95), st.floats(0.3, 3))
def test_all_warpers_follow_the_order_of_transformers(
    logits: np.ndarray, k: int, p: float, temperature: float
) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    theirs = torch.tensor(logits)
    for warper in (
        warpers.TemperatureLogitsWarper(float(np.float32(temperature))),
        warpers.TopKLogitsWarper(top_k=k),
    ):
        theirs = warper(None, theirs)
    sums = np.cumsum(-np.sort(-torch.softmax(theirs, -1).numpy(), axis=-1), axis=-1)
    assume((abs(sums - p) > 1e-5).all())
    theirs = torch.log_softmax(warpers.TopPLogitsWarper(top_p=p)(None, theirs), -1).numpy()
    warper = LogitsWarper(jnp.float32(temperature), jnp.int32(k), jnp.float32(p))
    found = jitted(jnp.full(3, 0.37), logits, None, warper)
    own = np.asarray(jax.nn.log_softmax(logits))
    for i, token in enumerate(np.asarray(found.token)):
        tied = logits[i] == logits[i, token]  # one of equally likely ones may be drawn for another
        assert theirs[i, tied].max() == pytest.approx(float(found.logp[i]), abs=2e-5)
        assert own[i, token] == pytest.approx(float(found.logp_model[i]), abs=2e-5)


@given(
    LOGITS,
    hnp.arrays(bool, (3, VOCABULARY)),
    hnp.arrays(int, 3, elements=st.integers(0, VOCABULARY - 1)),
    st.floats(0, 1, exclude_max=True, width=32),
)
def test_the_grammar_is_never_left(
    logits: np.ndarray, allowed: np.ndarray, some: np.ndarray, u: float
) -> None:
    allowed[np.arange(3), some] = True  # something must be
    for temperature in (None, jnp.float32(1.7)):
        warper = LogitsWarper(temperature, None, None)
        token = jitted(jnp.full(3, u), logits, allowed, warper).token
        assert allowed[np.arange(3), token].all()


@pytest.mark.parametrize("size", [1, 2, 128, 50001])
def test_impossible_tokens_are_never_drawn(size: int) -> None:
    """Not at the ends of the random numbers either, nor where rounding is worst."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (40, size)).astype(np.float32)
    order = rng.permuted(np.tile(np.arange(size), (40, 1)), axis=1)
    np.put_along_axis(logits, order[:, 1:][:, : size // 2], NEVER, axis=1)
    uniform = rng.random(40).astype(np.float32)
    uniform[:3] = 0, 1 - 2**-23, 2**-23
    token = draw_tokens(uniform, logits, None, LogitsWarper(jnp.float32(1), None, None)).token
    assert (logits[np.arange(40), token] > NEVER).all()


def test_draws_have_the_distribution_asked_for() -> None:
    logits = jnp.array([2.0, 0.5, 1.0, -1.0, 1.5, -3.0, 0.0, NEVER])
    n = 20000
    uniform = jax.random.uniform(jax.random.key(3), (n,))
    warper = LogitsWarper(jnp.float32(1.5), None, None)
    found = draw_tokens(uniform, jnp.tile(logits, (n, 1)), None, warper)
    counts = np.bincount(found.token, minlength=8)
    expected = np.exp(np.asarray(logits[:-1], float) / 1.5)
    assert counts[-1] == 0
    assert chisquare(counts[:-1], expected * (n / expected.sum())).pvalue > 1e-3


def test_the_likeliest_token_at_temperature_zero() -> None:
    logits = jnp.array([[0.0, 2.0, 1.0], [5.0, -1.0, 4.0]])
    allowed = jnp.array([[True, True, True], [False, True, True]])
    found = draw_tokens(jnp.zeros(2), logits, allowed, LogitsWarper(None, None, None))
    assert found.token.tolist() == [1, 2]
    assert found.logp.tolist() == [0, 0]
    expected = jax.nn.log_softmax(logits)[jnp.arange(2), jnp.array([1, 2])]
    np.testing.assert_allclose(found.logp_model, expected, rtol=1e-6)
