"""Texts for tests, and tokenizers learnt from them."""

from functools import lru_cache

from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_bpe, train_words

TRIPLES = (
    "<BCC>Nb67Mo33</BCC> <B2>ZrTiRu2</B2> <B2_Volume>50.6</B2_Volume>",
    "<BCC>Cr33Fe67</BCC> <B2>MnAl2Fe</B2> <B2_Volume>20.0</B2_Volume>",
    "<BCC>W50Ta50</BCC> <B2>TiV</B2> <B2_Volume>70.4</B2_Volume>",
    "<BCC>V10Cr90</BCC> <B2>AlNi</B2> <B2_Volume>38.9</B2_Volume>",
)
ELEMENTS_AND_DIGITS = r"</?[A-Z0-9_a-z]+>|[A-Z][a-z]?|[0-9]|[\s\S]"


@lru_cache
def bpe(n_vocabulary: int = 320) -> Tokenizer:
    """A byte-level tokenizer of 3 special tokens, 256 bytes and some merges."""
    return train_bpe(TRIPLES, n_vocabulary)


@lru_cache
def words() -> Tokenizer:
    """A tokenizer of tags, elements and digits."""
    return train_words(TRIPLES, ELEMENTS_AND_DIGITS)
