"""Tokenizers: texts come back, prompts are prefixes, chats as their template says."""

import builtins
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")
from small_text import TRIPLES, bpe, words

from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_bpe

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
    "<|turn|>{{ m['role'] }}\n{{ m['content'] | trim }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "user", "content": "An alloy, please."},
    {"role": "assistant", "content": "Which?"},
    {"role": "user", "content": "Any"},
    {"role": "assistant", "content": TRIPLES[0]},
]


def chatting(template: str = TEMPLATE) -> Tokenizer:
    tokenizer = train_bpe(TRIPLES, 300)
    tokenizer.fast.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    tokenizer.fast.chat_template = template
    return Tokenizer(tokenizer.fast)


@given(st.text().filter(lambda text: "<|" not in text))  # no special tokens
def test_any_text_comes_back(text: str) -> None:
    assert bpe().decode(bpe().encode([text])) == [text]


def test_words_come_back() -> None:
    tokens = words().encode(TRIPLES)
    assert words().decode(tokens) == list(TRIPLES)
    assert [words().fast.decode([i]) for i in tokens[3]][:5] == ["<BCC>", "V", "1", "0", "Cr"]


def test_an_unknown_word() -> None:
    with pytest.raises(ValueError, match="text 1 has what the tokenizer has no token for: 'Xe'"):
        words().encode(["Cr", "Xe"])


def test_prompt_and_completion() -> None:
    """The prompt's tokens are those it has alone, also where a merge spans the boundary."""
    tokenizer = bpe()
    prompt, completion = TRIPLES[0][:3], TRIPLES[0][3:]
    (sequence,) = tokenizer.sequences([prompt], [completion])
    (alone,) = tokenizer.prompts([prompt])
    assert sequence.n_prompt == len(alone)
    np.testing.assert_array_equal(sequence.tokens[: len(alone)], alone)
    assert alone[0] == tokenizer.start_tokens[0]
    assert sequence.tokens[-1] == tokenizer.end_id
    assert sequence.tokens.dtype == np.int32
    assert tokenizer.decode([sequence.tokens]) == [TRIPLES[0]]
    joined = tokenizer.encode([TRIPLES[0]])[0]
    assert len(joined) + 2 < len(sequence.tokens)  # a merge does span it


def test_nothing_to_encode() -> None:
    assert bpe().encode([]) == []
    assert bpe().encode([""])[0].tolist() == []
    assert bpe().prompts([""])[0].tolist() == bpe().start_tokens


def test_a_chat_as_the_template_says() -> None:
    tokenizer = chatting()
    (sequence,) = tokenizer.chat_sequences([CHAT])
    (prompt,) = tokenizer.chat_prompts([CHAT[:-1]])
    np.testing.assert_array_equal(sequence.tokens[: sequence.n_prompt], prompt)
    over = tokenizer.fast.convert_tokens_to_ids("<|over|>")
    assert sequence.tokens[-1] == over
    assert tokenizer.end_ids == (tokenizer.end_id, over)
    completion = tokenizer.decode([sequence.tokens[sequence.n_prompt :]])
    assert completion == [TRIPLES[0]]
    expected = tokenizer.fast.apply_chat_template(
        CHAT[:-1], add_generation_prompt=True, return_dict=False
    )
    assert prompt.tolist() == expected
    assert prompt.tolist().count(tokenizer.start_tokens[0]) == 1  # the template's own


def test_a_template_without_an_end() -> None:
    tokenizer = chatting(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert tokenizer.chat_sequences([CHAT])[0].tokens[-1] == tokenizer.end_id
    assert tokenizer.end_ids == (tokenizer.end_id,)


@pytest.mark.parametrize(
    ("tokenizer", "chat", "message"),
    [
        (bpe(), CHAT, "has no chat template: use prompt and completion"),
        (chatting(), CHAT[:-1], "chat 0 does not end with a message of the assistant"),
        (chatting(), [], "chat 0 does not end with a message of the assistant"),
        (
            chatting(),
            [*CHAT[:2], {"role": "system", "content": "a"}, CHAT[-1]],
            "chat 0: the chat template refuses it: no system, please",
        ),
        (
            chatting("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"),
            CHAT,
            "chat 0: the chat template writes the messages before",
        ),
    ],
)
def test_bad_chats(tokenizer: Tokenizer, chat: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.chat_sequences([chat])


REFUSAL = "{{ raise_exception('no system, please') }}{% endif %}"
SILENT = TEMPLATE.replace(REFUSAL, "{% else %}").replace("{% endfor %}", "{% endif %}{% endfor %}")
KNOWING = TEMPLATE.replace(REFUSAL, "{% endif %}")


@pytest.mark.parametrize("template", [TEMPLATE, SILENT])
def test_what_the_system_says_goes_to_the_user_where_no_system_is_known(template: str) -> None:
    """Templates that refuse the role, as Gemma's, and those that pass over it."""
    tokenizer = chatting(template)
    system = {"role": "system", "content": "Be brief."}
    merged = {"role": "user", "content": f"Be brief.\n\n{CHAT[0]['content']}"}
    found = tokenizer.chat_sequences([[system, *CHAT]])
    expected = tokenizer.chat_sequences([[merged, *CHAT[1:]]])
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    found = tokenizer.chat_prompts([[system, *CHAT[:3]]])
    np.testing.assert_array_equal(found, tokenizer.chat_prompts([[merged, *CHAT[1:3]]]))


def test_a_system_that_is_known_stays() -> None:
    tokenizer = chatting(KNOWING)
    (prompt,) = tokenizer.chat_prompts([[{"role": "system", "content": "Be brief."}, CHAT[0]]])
    assert (prompt == tokenizer.fast.convert_tokens_to_ids("<|turn|>")).sum() == 3
    assert "Be brief." in tokenizer.decode([prompt])[0]


def test_added_tokens() -> None:
    tokenizer = train_bpe(TRIPLES, 300)
    before = tokenizer.n_vocabulary()
    first = tokenizer.n_vocabulary()
    assert tokenizer.add_tokens(["<BCC>", "</BCC>", "<B2>"]) == [first, first + 1, first + 2]
    assert tokenizer.add_tokens(["<BCC>"]) == []
    assert tokenizer.n_vocabulary() == before + 3
    assert tokenizer.n_vocabulary(128) == 384
    tokens = tokenizer.encode(["<BCC>Nb</BCC>"])[0]
    assert {before, before + 1} <= set(tokens.tolist())
    assert tokenizer.decode([tokens]) == ["<BCC>Nb</BCC>"]


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "olmo2", "qwen2"])
def test_a_folder_gives_the_same_tokenizer(tmp_path: Path, model_type: str) -> None:
    """Also beside a model of any family."""
    tokenizer = chatting()
    tokenizer.add_tokens(["<B2>"])
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    again = Tokenizer.load(tmp_path)
    for one, other in zip(tokenizer.encode(TRIPLES), again.encode(TRIPLES), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.end_ids == tokenizer.end_ids
    assert again.start_tokens == tokenizer.start_tokens
    assert again.pad_id == tokenizer.pad_id
    assert again.n_vocabulary() == tokenizer.n_vocabulary()


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer: tokenizer\.json is not in it"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        Tokenizer.load(tmp_path / "absent")


def test_no_end_token() -> None:
    fast = train_bpe(TRIPLES, 300).fast
    fast.eos_token = None
    with pytest.raises(ValueError, match="has no end token"):
        Tokenizer(fast)


def test_transformers_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"crystaljax\[llm\]"):
        Tokenizer.load("anything")


@pytest.mark.parametrize("tokenizer", [bpe(), words()])
def test_the_bytes_of_tokens(tokenizer: Tokenizer) -> None:
    table = tokenizer.token_bytes()
    assert len(table) == tokenizer.n_vocabulary()
    assert table[tokenizer.end_id] is None
    for text, tokens in zip(TRIPLES, tokenizer.encode(TRIPLES), strict=True):
        assert b"".join(table[i] or b"" for i in tokens) == text.encode()


@given(st.text().filter(lambda text: "<|" not in text))  # no special tokens
def test_the_bytes_of_any_text(text: str) -> None:
    table = bpe().token_bytes()
    assert b"".join(table[i] or b"" for i in bpe().encode([text])[0]) == text.encode()


def test_the_bytes_of_sentencepiece_tokens() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["</s>", "<0xC3>", "▁Ni", "<B2>"]
    backend = Backend(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert Tokenizer(fast).token_bytes() == [None, b"\xc3", b" Ni", b"<B2>"]
    backend.decoder = decoders.WordPiece()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    with pytest.raises(ValueError, match="cannot be held to a grammar"):
        Tokenizer(fast).token_bytes()
