"""Tables of grammars, against whole tables of next states."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.models.llm.token_grammar import TokenGrammar, from_table


def random_table(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Next states with equal rows and columns, states without any, and what is accepted."""
    rng = np.random.default_rng(seed)
    n, v = rng.integers(1, 9), rng.integers(1, 30)
    small = rng.integers(-1, n, (n, v)) * (rng.random((n, v)) < 0.6) - (rng.random((n, v)) < 0.3)
    small = np.maximum(small, -1)
    small[rng.integers(n)] = -1
    return small[:, rng.integers(0, v, 40)], rng.random(n) < 0.5


def assert_is(grammar: TokenGrammar, table: np.ndarray, accepting: np.ndarray) -> None:
    states = np.arange(len(table))
    np.testing.assert_array_equal(grammar.allowed(states), table >= 0)
    tokens = np.broadcast_to(np.arange(table.shape[1]), table.shape)
    after = grammar.after(np.broadcast_to(states[:, None], table.shape), tokens)
    np.testing.assert_array_equal(after, table)
    np.testing.assert_array_equal(grammar.accepting[: len(table)], accepting)


@given(st.integers(0, 10**6))
def test_the_grammar_says_what_the_table_says(seed: int) -> None:
    table, accepting = random_table(seed)
    grammar = from_table(table, accepting)
    assert (grammar.n_states, grammar.n_vocabulary) == table.shape
    assert_is(grammar, table, accepting)
    assert (
        grammar.stuck().tolist() == np.flatnonzero(~((table >= 0).any(axis=1) | accepting)).tolist()
    )
    padded = grammar.padded()
    assert all((n & (n - 1)) == 0 for x in jax.tree.leaves(padded)[1:] for n in x.shape)
    assert_is(padded, table, accepting)


def test_on_the_device() -> None:
    table, accepting = random_table(3)
    grammar = jax.tree.map(jnp.asarray, from_table(table, accepting).padded())
    states, tokens = np.arange(len(table)), np.arange(40)
    np.testing.assert_array_equal(jax.jit(TokenGrammar.allowed)(grammar, states), table >= 0)
    after = jax.jit(jax.vmap(TokenGrammar.after, (None, None, 0)), static_argnums=())
    np.testing.assert_array_equal(jax.vmap(lambda s: after(grammar, s, tokens))(states), table)


def test_equal_columns_and_rows_are_kept_once() -> None:
    table = np.full((1000, 5000), -1)
    table[:, 100:200] = np.arange(1000)[:, None]
    table[::2, 300:] = 7
    grammar = from_table(table, np.ones(1000, bool))
    assert_is(grammar, table, np.ones(1000, bool))
    assert grammar.rank.shape == (3, 3)
    assert len(grammar.following) == 1500
