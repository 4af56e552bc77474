"""Tokenizers of language models: texts and chats to tokens and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.text.packing import TokenSequence

Message = Mapping[str, str]
"""One turn of a chat: its "role" (system, user or assistant) and its "content"."""

TOKENIZER_FILE = "tokenizer.json"

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

_PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def transformers_module() -> Any:
    """The package transformers; ImportError saying how to install it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'transformers is not installed: run pip install "crystaljax[llm]"'
        ) from error
    return transformers


class Tokenizer:
    """A fast tokenizer of Hugging Face, with the methods that training and sampling need.

    Prompts and completions are always tokenised separately. So a prompt has the same tokens in
    sampling, where it is alone, and in training, where its completion follows.

    Args:
      fast: a `transformers.PreTrainedTokenizerFast`. ValueError if it has no end token.
    """

    def __init__(self, fast: Any) -> None:
        if fast.eos_token_id is None:
            raise ValueError(
                f"the tokenizer {fast.name_or_path!r} has no end token: set eos_token in its "
                "tokenizer_config.json"
            )
        self.fast = fast

    @classmethod
    def load(cls, name: str | Path) -> Tokenizer:
        """Load a tokenizer from a folder, or by its name on the Hugging Face hub.

        Only tokenizer.json decides how texts are split. (transformers' AutoTokenizer lets the
        model's type in config.json override it, and so gives other tokens for some folders.)

        FileNotFoundError if there is no tokenizer.json, ValueError if it cannot be read,
        ImportError without the package transformers.
        """
        fast = transformers_module().PreTrainedTokenizerFast
        folder = Path(name).expanduser()
        if folder.is_dir() and not (folder / TOKENIZER_FILE).is_file():
            raise FileNotFoundError(
                f"the folder {folder} has no tokenizer: {TOKENIZER_FILE} is not in it. Copy the "
                "tokenizer's files beside the model's"
            )
        if not folder.is_dir() and not _HUB_NAME.fullmatch(str(name)):
            raise FileNotFoundError(f"no tokenizer {name!s}: there is no such folder")
        try:
            loaded = fast.from_pretrained(str(folder) if folder.is_dir() else str(name))
        except OSError as error:
            raise FileNotFoundError(
                f"no tokenizer {name!s}: it is no folder here, and the hub gave none: {error}"
            ) from error
        except Exception as error:  # the Rust library raises plain Exception
            raise ValueError(f"the tokenizer {name!s} cannot be read: {error}") from error
        return cls(loaded)

    def save(self, folder: Path) -> None:
        """Write the files that `load` and transformers' AutoTokenizer read."""
        self.fast.save_pretrained(str(folder))

    @property
    def end_id(self) -> int:
        """The token that ends a text."""
        return int(self.fast.eos_token_id)

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion: of a text, and of a turn in a chat."""
        if not self.fast.chat_template:
            return (self.end_id,)
        turn = self.chat_sequences([_PROBE])[0]
        return tuple(dict.fromkeys([self.end_id, int(turn.tokens[-1])]))

    @property
    def pad_id(self) -> int:
        """The token for padding; the end token if the tokenizer has none."""
        pad = self.fast.pad_token_id
        return self.end_id if pad is None else int(pad)

    @cached_property
    def start_tokens(self) -> list[int]:
        """Tokens at the start of every text: the start token, or none."""
        return [i for i in self.fast("").input_ids if i == self.fast.bos_token_id]

    def n_vocabulary(self, multiple: int = 1) -> int:
        """Number of embeddings for all tokens, rounded up to a multiple of `multiple`."""
        largest = max(self.fast.get_vocab().values())
        return (largest // multiple + 1) * multiple

    def add_tokens(self, texts: Iterable[str]) -> list[int]:
        """Make each text a single token, which decoded texts keep; returns the tokens that are new.

        The model then needs `n_vocabulary` embeddings.
        """
        added, known = transformers_module().AddedToken, set(self.fast.get_vocab().values())
        self.fast.add_tokens([added(text, normalized=False) for text in texts])
        return sorted(set(self.fast.get_vocab().values()) - known)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens (int32 [n]) of each text, without start and end.

        ValueError naming the first text with characters that the tokenizer has no token for.
        """
        if not texts:
            return []
        found = self.fast(list(texts), add_special_tokens=False).input_ids
        unknown = self.fast.unk_token_id
        for i, tokens in enumerate(found):
            if unknown in tokens and self.fast.unk_token not in texts[i]:
                raise ValueError(f"text {i} has what the tokenizer has no token for: {texts[i]!r}")
        return [np.array(tokens, np.int32) for tokens in found]

    def decode(self, tokens: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """The text of each sequence of tokens, without start, end and padding."""
        lists = [np.asarray(each).tolist() for each in tokens]
        return list(
            self.fast.batch_decode(
                lists, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def prompts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens (int32 [n]) of texts to continue: the start token and the text."""
        start = np.array(self.start_tokens, np.int32)
        return [np.concatenate([start, tokens]) for tokens in self.encode(texts)]

    def sequences(self, prompts: Sequence[str], completions: Sequence[str]) -> list[TokenSequence]:
        """Tokens of each prompt followed by its completion and the end token."""
        end = np.array([self.end_id], np.int32)
        pairs = zip(self.prompts(prompts), self.encode(completions), strict=True)
        return [
            TokenSequence(np.concatenate([prompt, completion, end]), len(prompt))
            for prompt, completion in pairs
        ]

    def chat_prompts(self, chats: Sequence[Sequence[Message]]) -> list[np.ndarray]:
        """Tokens (int32 [n]) of chats up to the start of the assistant's next message.

        ValueError if there is no chat template, or it refuses the messages.
        """
        return self.encode([self._written(chat, True, i) for i, chat in enumerate(chats)])

    def chat_sequences(self, chats: Sequence[Sequence[Message]]) -> list[TokenSequence]:
        """Tokens of chats; the completion is the assistant's last message and its end token.

        ValueError if there is no chat template, it refuses the messages, or the last is not the
        assistant's.
        """
        prompts, completions = [], []
        for i, chat in enumerate(chats):
            if not chat or chat[-1]["role"] != "assistant":
                raise ValueError(f"chat {i} does not end with a message of the assistant")
            prompt, whole = self._written(chat[:-1], True, i), self._written(chat, False, i)
            if not whole.startswith(prompt):
                raise ValueError(
                    f"chat {i}: the chat template writes the messages before the assistant's "
                    "another way when the assistant's is there: use prompt and completion instead"
                )
            prompts.append(prompt)
            completions.append(whole[len(prompt) :])
        pairs = zip(self.encode(prompts), self.encode(completions), strict=True)
        return [
            TokenSequence(np.concatenate([prompt, self._turn(completion)]), len(prompt))
            for prompt, completion in pairs
        ]

    def token_bytes(self) -> list[bytes | None]:
        """[n_vocabulary]: bytes of each token in a text; None for special tokens.

        ValueError if tokens do not stand for bytes by themselves (e.g. words with spaces put
        between them).
        """
        kinds = _decoder_kinds(json.loads(self.fast.backend_tokenizer.to_str())["decoder"])
        if not kinds & {"ByteLevel", "Metaspace", "Replace", "Fuse"}:
            raise ValueError(
                f"the tokenizer {self.fast.name_or_path!r} puts something between tokens when it "
                "decodes: it cannot be held to a grammar"
            )
        found: list[bytes | None] = [None] * self.n_vocabulary()
        for token, i in self.fast.get_vocab().items():
            found[i] = _bytes_of(token, kinds)
        for i, added in self.fast.added_tokens_decoder.items():
            found[i] = None if added.special else added.content.encode()
        for i in self.fast.all_special_ids:
            found[i] = None
        return found

    @cached_property
    def _special(self) -> np.ndarray:
        """int [n]: special tokens, which are no text."""
        added = self.fast.added_tokens_decoder.items()
        return np.array([*self.fast.all_special_ids, *(i for i, token in added if token.special)])

    def _turn(self, completion: np.ndarray) -> np.ndarray:
        """A completion of a chat up to the token that ends the turn, without what follows it."""
        ends = np.flatnonzero(np.isin(completion, self._special))
        if len(ends):
            return completion[: ends[-1] + 1]
        return np.append(completion, np.int32(self.end_id))

    @cached_property
    def _knows_system(self) -> bool:
        """Whether the chat template supports a system message."""
        from jinja2 import TemplateError

        probe = [{"role": "system", "content": "zyx"}, *_PROBE]
        try:
            return "zyx" in str(self.fast.apply_chat_template(probe, tokenize=False))
        except TemplateError:
            return False

    def _written(self, chat: Sequence[Message], prompt: bool, number: int) -> str:
        """A chat as text; with `prompt` it ends with the header of the assistant's message.

        If the template has no system role, as Gemma's, the system message is put in front of the
        user's first message.
        """
        if not self.fast.chat_template:
            raise ValueError(
                f"the tokenizer {self.fast.name_or_path!r} has no chat template: use prompt and "
                "completion instead of messages"
            )
        from jinja2 import TemplateError

        messages = [dict(message) for message in chat]
        roles = [message["role"] for message in messages[:2]]
        if roles == ["system", "user"] and not self._knows_system:
            system, user, *rest = messages
            both = f"{system['content']}\n\n{user['content']}"
            messages = [{**user, "content": both}, *rest]
        try:
            written = self.fast.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError as error:
            raise ValueError(f"chat {number}: the chat template refuses it: {error}") from error
        return str(written)


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    """The types of a tokenizer's decoder and its parts."""
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*map(_decoder_kinds, decoder.get("decoders", [])))


def _bytes_of(token: str, kinds: set[str]) -> bytes:
    """The bytes of a token of the vocabulary."""
    if "ByteLevel" in kinds:
        return bytes(_BYTE_OF.get(character, 0) for character in token)
    if "ByteFallback" in kinds and len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    if kinds & {"Metaspace", "Replace"}:
        token = token.replace("▁", " ")
    return token.encode()


def _byte_of() -> dict[str, int]:
    """The byte of each character of byte-level vocabularies.

    Printable characters of Latin-1 stand for themselves, the others for 256, 257, ... in order
    (GPT-2, Radford et al. 2019).
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


_BYTE_OF = _byte_of()
