"""Grammars of all space groups and elements: time, memory and size, by format and vocabulary.

    python experiments/benchmarks/grammars.py

Cost: about five minutes on one core. Vocabularies: digits and symbols of the format's texts, two of
BPE trained on them, and one as large as those of pretrained models: the bytes, all numbers of one
to three digits, and the most frequent words and marks of the Python files on this machine, with and
without a blank in front. Each grammar is built in a process of its own, and read from disk again.
`peak_MB` is the whole memory of the process, with JAX and the vocabulary; `base_MB` is that before
the grammar. The last line printed is one JSON object; `value` is the longest time to build one.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sysconfig
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tyro
from sources import shared_table, title

from crystaljax.data.dataset import load
from crystaljax.hardware import hardware
from crystaljax.text import grammar as grammars
from crystaljax.text.tokenizer import Tokenizer, transformers_module
from crystaljax.text.tokenizer_training import train_bpe, train_words
from crystaljax.tokenizations.registry import create_format, tokenization_names

SYMBOLS = r"[A-Z][a-z]?|[\s\S]"
WORDS = re.compile(r" ?[A-Za-z]+|[ \n]+|[^A-Za-z0-9\s]{1,3}")


@dataclass(frozen=True)
class Config:
    formats: tuple[str, ...] = field(default_factory=lambda: tokenization_names("text"))
    """Names, or FILE.py:CLASS."""
    source: str = field(default_factory=lambda: shared_table("val"))
    """A file of structures, or "prototypes": vocabularies are of their texts."""
    bpe: tuple[int, ...] = (512, 4000)
    """Sizes of the vocabularies trained on a format's texts."""
    large: int = 150_000
    """Size of the large vocabulary."""


def large_vocabulary(n: int) -> Tokenizer:
    """n tokens like those of a pretrained model (without merges, as it need not split texts)."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    to_character = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def written(text: str) -> str:
        return "".join(part for part, _ in to_character.pre_tokenize_str(text))

    counts: Counter[str] = Counter()
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        counts.update(WORDS.findall(path.read_text(encoding="utf-8", errors="ignore")))
        if len(counts) > 4 * n:
            break
    digits = ["".join(each) for k in (1, 2, 3) for each in product("0123456789", repeat=k)]
    words = [written(word) for word in digits + [word for word, _ in counts.most_common(2 * n)]]
    tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    vocabulary = {token: i for i, token in enumerate(list(dict.fromkeys(tokens))[:n])}
    backend = Backend(models.BPE(vocabulary, []))
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(
        transformers_module().PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    )


def megabytes() -> int:
    """Peak memory of the process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Measurements of one format and vocabulary."""
    grammars.KEPT_SECONDS = 0.0
    os.environ["CRYSTALJAX_CACHE"] = str(folder / "cache")
    format, tokenizer = create_format(name), Tokenizer.load(folder)
    n, base, seconds = tokenizer.n_vocabulary(), megabytes(), []
    for _ in range(2):
        start = time.perf_counter()
        grammar = grammars.from_regex(format.pattern(), tokenizer, n)
        seconds.append(round(time.perf_counter() - start, 2))
    peak = megabytes()
    (kept,) = (folder / "cache" / "grammars").iterdir()
    size = kept.stat().st_size
    kept.unlink()
    n_rows, n_classes = grammar.rank.shape
    return {
        "tokens": n,
        "build_s": seconds[0],
        "load_s": seconds[1],
        "base_MB": base,
        "peak_MB": peak,
        "states": grammar.n_states,
        "classes": n_classes,
        "rows": n_rows,
        "transitions": len(grammar.following),
        "table_MB": round(sum(x.nbytes for x in vars(grammar).values()) / 2**20, 2),
        "file_MB": round(size / 2**20, 2),
    }


def main(config: Config) -> None:
    crystals = load(Path(config.source) if Path(config.source).exists() else config.source).crystals
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        large_vocabulary(config.large).save(large := Path(scratch) / "large")
        for name in config.formats:
            texts = create_format(name).encode(crystals)
            folders = {"large": large}
            made = {"symbols": train_words(texts, SYMBOLS)}
            made |= {f"bpe-{n}": train_bpe(texts, n) for n in config.bpe}
            for label, tokenizer in made.items():
                tokenizer.save(folder := Path(scratch) / f"{len(found)}-{label}")
                folders = {label: folder, **folders}
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
                each = {x: pool.submit(measure, name, folder) for x, folder in folders.items()}
                found[name] = {x: future.result() for x, future in each.items()}
    for name, rows in found.items():
        for label, row in rows.items():
            print(f"{name:14}{label:10}" + " ".join(f"{k} {v}" for k, v in row.items()))
    report = {
        "name": "grammars",
        "value": max(row["build_s"] for rows in found.values() for row in rows.values()),
        "unit": "s",
        "hardware": hardware(),
        "source": title(config.source),
        "formats": found,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
