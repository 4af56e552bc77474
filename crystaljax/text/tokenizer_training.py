"""Tokenizers for models trained from scratch: trained on texts, or made of given words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crystaljax.text.expressions import SYMBOLS_AND_CHARACTERS, one_of
from crystaljax.text.tokenizer import Tokenizer, transformers_module

START, END, PAD, UNKNOWN = "<|start|>", "<|end|>", "<|pad|>", "<|unknown|>"

CHARACTERS = r"[\s\S]"
"""The pattern for `train_words` that makes every character a token."""


def train_bpe(texts: Sequence[str], n_vocabulary: int, added: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE tokenizer: it encodes any text. The same texts give the same tokenizer.

    Args:
      n_vocabulary: largest number of tokens, at least 259 (bytes, start, end, padding) + those
        added.
      added: texts that are one token each, e.g. the tags of a format; kept in decoded texts.

    ValueError if there is no text, or `n_vocabulary` is too small.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + 3 + len(added)
    if n_vocabulary < least:
        raise ValueError(f"a vocabulary of {n_vocabulary}: at least {least} are needed")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocabulary - len(added),
        special_tokens=[START, END, PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_without(texts, added), trainer)
    return _finished(backend, added)


def train_words(texts: Sequence[str], pattern: str, added: Sequence[str] = ()) -> Tokenizer:
    r"""A tokenizer whose tokens are the matches of a regular expression and the text between.

    It knows only tokens that occur in the texts. The same texts give the same tokenizer.

    Args:
      pattern: e.g. r"[A-Z][a-z]?|\d|\s" for elements, digits and blanks, or `CHARACTERS`.
      added: texts that are one token each, e.g. the tags of a format.

    ValueError if there is no text.
    """
    split = _split(pattern)
    return _words(sorted(_parts(split, texts, added)), split, added)


def from_vocabulary(vocabulary: Sequence[str], added: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer whose tokens are the given words; texts are these words, concatenated.

    The longest word that fits is taken. Texts with anything else in them cannot be encoded.

    Args:
      vocabulary: the words, with the blanks and line ends that belong to them, e.g. " 2a".
      added: further texts that are one token each, e.g. the tags of a format.

    ValueError if there is no word, or one is empty or there twice.
    """
    return _words(vocabulary, _split(_either(vocabulary)), added)


def words_and_more(
    vocabulary: Sequence[str], texts: Sequence[str], added: Sequence[str] = ()
) -> Tokenizer:
    """The same; other parts of the texts, such as prompts, are split into symbols and characters.

    ValueError as `from_vocabulary`, and if there is no text.
    """
    split = _split(f"{_either(vocabulary)}|{SYMBOLS_AND_CHARACTERS}")
    return _words([*vocabulary, *sorted(_parts(split, texts, added) - {*vocabulary})], split, added)


def _either(vocabulary: Sequence[str]) -> str:
    """Regular expression for the longest word of a vocabulary; ValueError for a bad vocabulary."""
    if len(set(vocabulary)) < len(vocabulary) or "" in vocabulary:
        raise ValueError("a vocabulary's words must be different and not empty")
    return one_of(vocabulary)


def _parts(split: Any, texts: Sequence[str], added: Sequence[str]) -> set[str]:
    """The distinct pieces of the texts, without the added tokens."""
    parts = _without(texts, added)
    return {word for part in parts for word, _ in split.pre_tokenize_str(part)}


def _split(pattern: str) -> Any:
    """Pre-tokenizer: splits texts into matches of a regular expression and the text between."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _words(words: Sequence[str], split: Any, added: Sequence[str]) -> Tokenizer:
    """The tokenizer with a token for each word."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models

    vocabulary = [START, END, PAD, UNKNOWN, *words]
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, UNKNOWN))
    backend.pre_tokenizer = split
    backend.decoder = decoders.Fuse()
    return _finished(backend, added, unk_token=UNKNOWN)


def _without(texts: Sequence[str], added: Sequence[str]) -> list[str]:
    """The parts of the texts between the added tokens; ValueError if there are none."""
    if not texts:
        raise ValueError("no texts to learn a tokenizer from")
    parts = list(texts)
    for token in sorted(added, key=len, reverse=True):
        parts = [piece for part in parts for piece in part.split(token)]
    return [part for part in parts if part]


def _finished(backend: Any, added: Sequence[str], **special: str) -> Tokenizer:
    """The tokenizer with its added tokens; every text gets the start token first."""
    from tokenizers import processors

    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, backend.token_to_id(START))]
    )
    fast = transformers_module().PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=START, eos_token=END, pad_token=PAD, **special
    )
    tokenizer = Tokenizer(fast)
    tokenizer.add_tokens(added)
    return tokenizer
