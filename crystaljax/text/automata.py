"""Deterministic finite automata over bytes, compiled from regular expressions.

Python's own parser reads an expression, so its syntax and its character classes are those of `re`.
Equal parts with equal continuations share one state, like the suffixes of a trie. So the subset
construction is cheap (linear in the number of states) for expressions in which what may follow
depends on little of the text before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np

MAX_STATES = 500_000
"""Largest number of states of an automaton."""

ByteSet = int
"""A set of bytes: bit b is set if byte b is in it."""

_ACCEPT = 0
"""The state of a `_Machine` at the end of a text."""


@dataclass(frozen=True)
class Automaton:
    """N states, the first before any byte; a text matches if it leads to an accepting one."""

    symbol: np.ndarray
    """int [256]: class of each byte; bytes that the expression never tells apart share one."""
    next_state: np.ndarray
    """int32 [N, C]: next state for a byte of each class, −1 where there is none."""
    accepting: np.ndarray
    """bool [N]: a text may end in this state."""

    def matches(self, text: bytes) -> bool:
        """Whether the automaton accepts the whole text."""
        state = 0
        for symbol in self.symbol[list(text)]:
            state = self.next_state[state, symbol]
            if state < 0:
                return False
        return bool(self.accepting[state])


def compile_pattern(pattern: str, max_states: int = MAX_STATES) -> Automaton:
    """The automaton of the UTF-8 texts that match a regular expression as a whole (fullmatch).

    ValueError saying what is wrong with the pattern: its syntax, something that no automaton has
    (look-around, anchors, back-references), or more states than `max_states`.
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error
    nodes = _Nodes()
    root = nodes.sequence(parsed, parsed.state.flags)
    machine = _Machine(nodes.found, max_states)
    return _determinised(machine, machine.before(root, _ACCEPT))


class _Nodes:
    """Syntax tree of an expression; equal parts are stored once.

    ("set", *sequences of byte sets), ("sequence", *parts), ("choice", *parts), ("repeat", least,
    most, part), with parts as numbers.
    """

    def __init__(self) -> None:
        self.found: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def sequence(self, items: Iterable[tuple[Any, Any]], flags: int) -> int:
        """Number of the node for a sequence of items from Python's parser."""
        parts = [self._part(kind, argument, flags) for kind, argument in items]
        return parts[0] if len(parts) == 1 else self._number("sequence", *parts)

    def _part(self, kind: Any, argument: Any, flags: int) -> int:
        match str(kind):
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY" as name:
                items = tuple(argument) if name == "IN" else argument
                return self._number("set", *_byte_sequences(kind, items, flags))
            case "BRANCH":
                return self._number(
                    "choice", *(self.sequence(branch, flags) for branch in argument[1])
                )
            case "SUBPATTERN":
                _, added, removed, inner = argument
                return self.sequence(inner, (flags | added) & ~removed)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inner = argument
                bound = None if most is _constants.MAXREPEAT else most
                return self._number("repeat", least, bound, self.sequence(inner, flags))
            case name:
                raise ValueError(f"{_NAMES.get(name, name.lower())} cannot be part of a grammar")

    def _number(self, *node: Any) -> int:
        number = self._numbers.setdefault(node, len(self.found))
        if number == len(self.found):
            self.found.append(node)
        return number


_NAMES = {
    "AT": "an anchor (^, $, \\b; texts match wholly anyway)",
    "ASSERT": "look-around",
    "ASSERT_NOT": "look-around",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a back-reference",
}


_SAME_LENGTH = (0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)
"""Ranges of code points with equally many bytes in UTF-8, without the surrogates."""


@lru_cache(1024)
def _byte_sequences(kind: Any, argument: Any, flags: int) -> tuple[tuple[ByteSet, ...], ...]:
    """UTF-8 of the characters of an item of an expression, as sequences of byte sets."""
    found: dict[tuple[ByteSet, ...], ByteSet] = {}
    for first, last in _code_points(kind, argument, flags):
        for *head, tail in _utf8(first, last):
            key = tuple(map(_byte_set, head))
            found[key] = found.get(key, 0) | _byte_set(tail)
    return tuple((*head, tail) for head, tail in found.items())


def _code_points(kind: Any, argument: Any, flags: int) -> list[tuple[int, int]]:
    """First and last of each range of characters that an item matches in `re`."""
    items = argument if str(kind) == "IN" else ((kind, argument),)
    if not flags & re.IGNORECASE and all(str(x) in ("LITERAL", "RANGE") for x, _ in items):
        return [x if isinstance(x, tuple) else (x, x) for _, x in items]
    state, forever = _parser.State(), _constants.MAXREPEAT
    item = _parser.SubPattern(state, [(kind, argument)])
    several = _parser.SubPattern(state, [(_constants.MAX_REPEAT, (1, forever, item))])
    runs = _compiler.compile(several, flags).finditer("".join(map(chr, range(0x110000))))
    return [(run.start(), run.end() - 1) for run in runs]


def _utf8(first: int, last: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Byte ranges of a range of code points, split into parts; surrogates have no UTF-8."""
    for low, high in _SAME_LENGTH:
        if first <= high and low <= last:
            step = 64 ** (len(chr(high).encode()) - 1)
            yield from _blocks(max(first, low), min(last, high), step)


def _blocks(first: int, last: int, step: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The same for code points of equally many bytes that agree before the byte worth `step`."""
    if step > 1 and first // step == last // step:
        yield from _blocks(first, last, step // 64)
        return
    low, high = -(-first // step) * step, (last + 1) // step * step  # whole blocks
    if first < low:
        yield from _blocks(first, low - 1, step // 64)
    if low < high:
        yield tuple(zip(chr(low).encode(), chr(high - 1).encode(), strict=True))
    if high <= last:
        yield from _blocks(high, last, step // 64)


def _byte_set(ends: tuple[int, int]) -> ByteSet:
    """Set of the bytes from the first to the last of `ends`."""
    return (1 << ends[1] + 1) - (1 << ends[0])


class _Machine:
    """A nondeterministic automaton; equal states are stored once.

    State s is either a choice of other states, `choices[s]`, or reads a byte of the set `reads[s]`
    and continues in state `goes_to[s]`.
    """

    def __init__(self, nodes: Sequence[tuple[Any, ...]], max_states: int) -> None:
        self.nodes, self.max_states = nodes, max_states
        self.choices: list[tuple[int, ...]] = [()]
        self.reads: list[ByteSet] = [0]
        self.goes_to = [-1]
        self._numbers: dict[tuple[Any, ...], int] = {}

    def before(self, node: int, after: int) -> int:
        """State that reads what the node describes and continues in the state `after`."""
        key = (node, after, "node")
        if key not in self._numbers:
            self._numbers[key] = self._made(self.nodes[node], after)
        return self._numbers[key]

    def _made(self, node: tuple[Any, ...], after: int) -> int:
        kind, *rest = node
        if kind == "set":
            return self._choice([self._reading(sequence, after) for sequence in rest])
        if kind == "choice":
            return self._choice([self.before(part, after) for part in rest])
        if kind == "sequence":
            for part in reversed(rest):
                after = self.before(part, after)
            return after
        least, most, part = rest
        if most is None:  # a loop: after the part it may begin again
            state = self._new((), 0, -1)
            self.choices[state] = self.before(part, state), after
            after = state
        else:
            skipped = after
            for _ in range(most - least):
                after = self._choice([self.before(part, after), skipped])
        for _ in range(least):
            after = self.before(part, after)
        return after

    def _reading(self, sequence: Sequence[ByteSet], after: int) -> int:
        """State that reads one byte of each set in turn and continues in the state `after`."""
        for byte_set in reversed(sequence):
            after = self._once((), byte_set, after)
        return after

    def _choice(self, states: Iterable[int]) -> int:
        """State that is a choice of the given ones."""
        distinct = tuple(dict.fromkeys(states))
        return distinct[0] if len(distinct) == 1 else self._once(distinct, 0, -1)

    def _once(self, *state: Any) -> int:
        if state not in self._numbers:
            self._numbers[state] = self._new(*state)
        return self._numbers[state]

    def _new(self, choices: tuple[int, ...], reads: ByteSet, goes_to: int) -> int:
        if len(self.reads) > 4 * self.max_states:
            raise _too_large(self.max_states)
        self.choices.append(choices)
        self.reads.append(reads)
        self.goes_to.append(goes_to)
        return len(self.reads) - 1

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """The reading and accepting states that some states lead to without reading a byte."""
        seen, new = set(states), list(states)
        while new:
            for state in self.choices[new.pop()]:
                if state not in seen:
                    seen.add(state)
                    new.append(state)
        return frozenset(s for s in seen if self.reads[s] or s == _ACCEPT)


def _determinised(machine: _Machine, start: int) -> Automaton:
    """The automaton whose states are sets of a machine's (subset construction)."""
    symbol, members = _symbols(set(machine.reads))
    closures: dict[frozenset[int], int] = {}
    subsets: list[frozenset[int]] = []
    numbers: dict[frozenset[int], int] = {}

    def number(states: frozenset[int]) -> int:
        if states not in closures:
            subset = machine.closure(states)
            closures[states] = numbers.setdefault(subset, len(subsets))
            if closures[states] == len(subsets):
                if len(subsets) == machine.max_states:
                    raise _too_large(machine.max_states)
                subsets.append(subset)
        return closures[states]

    number(frozenset([start]))
    sources, symbols, targets = [], [], []
    for source, subset in enumerate(subsets):  # grows in the loop
        after: dict[int, set[int]] = {}
        for state in subset:
            for each in members[machine.reads[state]]:
                after.setdefault(each, set()).add(machine.goes_to[state])
        for each, states in after.items():
            sources.append(source)
            symbols.append(each)
            targets.append(number(frozenset(states)))
    next_state = np.full((len(subsets), symbol.max() + 1), -1, np.int32)
    next_state[sources, symbols] = targets
    return Automaton(symbol, next_state, np.array([_ACCEPT in subset for subset in subsets]))


def _symbols(sets: set[ByteSet]) -> tuple[np.ndarray, dict[ByteSet, list[int]]]:
    """Class of each byte, int [256] (same class: in the same sets), and the classes of each set."""
    order = sorted(sets)
    packed = np.array([list(each.to_bytes(32, "little")) for each in order], np.uint8)
    inside = np.unpackbits(packed, axis=1, bitorder="little")
    _, symbol = np.unique(inside, axis=1, return_inverse=True)
    members = {
        each: np.unique(symbol[row == 1]).tolist() for each, row in zip(order, inside, strict=True)
    }
    return symbol, members


def _too_large(n_states: int) -> ValueError:
    return ValueError(f"more than {n_states} states: bound its repetitions more tightly")
