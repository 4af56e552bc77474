"""LoRA adapters in PEFT's folders: adapter_model.safetensors and adapter_config.json.

They include the embeddings of tokens that were trained with them (`trainable_token_indices`).
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.models.llm.decoder import LanguageModel, TokenRows
from crystaljax.models.llm.folder import on_host
from crystaljax.models.llm.linear import LoRA
from crystaljax.models.llm.lora import adapters, check_tokens, projections
from crystaljax.models.llm.names import Path as ModelPath
from crystaljax.models.llm.names import tensor_name
from crystaljax.models.llm.tensor_files import SafetensorError, load_file, save_file
from crystaljax.models.llm.vocabulary import resize_vocabulary

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
ROWS = "token_adapter.trainable_tokens_delta"
"""PEFT's suffix for the trained rows of a table."""
TABLES = ("weight", "token_adapter.base_layer.weight")
"""PEFT's names of whole tables, which it saves if the vocabulary was resized."""

READ = {
    "peft_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "init_lora_weights",
    "trainable_token_indices",
}
"""Supported settings."""
WITHOUT_EFFECT = {
    "task_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "ensure_weight_tying",
}
"""Settings that do not change what a trained adapter computes."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that do not change the base's weights, unlike PiSSA and others."""


def load_adapter(model: LanguageModel, folder: str | Path, base: str | None = None) -> None:
    """Put the adapter of a PEFT folder on the model, its arrays in float32.

    A vocabulary that was resized for the adapter, so that PEFT kept all embeddings beside it, is
    resized here too.

    Args:
      model: without adapters; its base may be quantised.
      folder: holds adapter_config.json and adapter_model.safetensors.
      base: name or folder of the model; a warning follows if the adapter names another.

    FileNotFoundError for a missing file; ValueError if the adapter needs a feature of PEFT that
    is not supported, or its arrays are not exactly those that its settings and the model imply.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no PEFT adapter: it has no {name}")
    if adapters(model):
        raise ValueError("the model has adapters already: merge or remove them first")
    config = _read_config(folder / CONFIG)
    named = config.get("base_model_name_or_path")
    if base and named and Path(base).name != Path(named).name:
        log.warning("the adapter %s was trained on %s, and the model is %s", folder, named, base)

    names = _names(model)
    try:
        loras = _describe(model, names, config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    try:
        arrays = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}): fetch it again") from error
    tables = _take_tables(arrays)
    resize_vocabulary(model, max((len(x) for x in tables.values()), default=1))
    try:
        tokens = _trained_tokens(model, config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    if model.head is None:
        _drop_tied(arrays, folder / WEIGHTS)
    expected: dict[str, tuple[int, ...]] = {
        f"{PREFIX}{name}.{ROWS}": (len(ids), model.config.width) for name, ids in tokens.items()
    }
    for path, lora in loras.items():
        for factor, key in zip((lora.a, lora.b), _keys(names[path]), strict=True):
            expected[key] = factor.shape[::-1]
    expected |= dict.fromkeys(tables, (model.config.vocabulary, model.config.width))
    found = {key: x.shape for key, x in (arrays | tables).items()}
    _compare(folder / WEIGHTS, found, expected)
    _put_tables(model, tables)
    layers = projections(model)
    for path, lora in loras.items():
        for factor, key in zip((lora.a, lora.b), _keys(names[path]), strict=True):
            factor.set_value(jnp.asarray(arrays[key].T, jnp.float32))
        layers[path].lora = lora
    rows = {
        name: TokenRows(ids, jnp.asarray(arrays[f"{PREFIX}{name}.{ROWS}"], jnp.float32))
        for name, ids in tokens.items()
    }
    model.embed_rows, model.head_rows = rows.get(EMBEDDING), rows.get(HEAD)


def save_adapter(model: LanguageModel, folder: str | Path, base: str | None = None) -> None:
    """Write the model's adapters as a PEFT folder; `base` is the name or folder of the model.

    In a run of many processes all have to call it; the first one writes. ValueError if the model
    has no adapters.
    """
    loras = adapters(model)
    if not loras:
        raise ValueError("the model has no adapters to save: give it some (add_lora) first")
    names, arrays = _names(model), {}
    for path, lora in loras.items():
        for factor, key in zip((lora.a, lora.b), _keys(names[path]), strict=True):
            arrays[key] = on_host(factor.get_value(), transposed=True)
    trained = {EMBEDDING: model.embed_rows, HEAD: model.head_rows}
    tokens = {}
    for name, rows in trained.items():
        if rows is not None:
            arrays[f"{PREFIX}{name}.{ROWS}"] = on_host(rows.rows.get_value(), transposed=False)
            tokens[name.removeprefix("model.")] = list(rows.tokens)
    if model.tables_of_adapter:
        tables = {EMBEDDING: (model.embed.embedding, False), HEAD: (model.head_kernel, True)}
        for name, (table, transposed) in tables.items():
            if table is not None:
                suffix = TABLES[trained[name] is not None]
                arrays[f"{PREFIX}{name}.{suffix}"] = on_host(table.get_value(), transposed)
    targets = sorted({str(path[-1]) for path in loras})
    if any(path[-1] in targets and path not in loras for path in names):
        targets = [names[path] for path in loras]
    rank = Counter(lora.rank for lora in loras.values()).most_common(1)[0][0]
    alpha = Counter(lora.alpha for lora in loras.values()).most_common(1)[0][0]
    some = next(iter(loras.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": some.dropout,
        "use_rslora": some.rank_stabilized,
        "target_modules": targets,
        "rank_pattern": {names[p]: x.rank for p, x in loras.items() if x.rank != rank},
        "alpha_pattern": {names[p]: x.alpha for p, x in loras.items() if x.alpha != alpha},
        "bias": "none",
        "trainable_token_indices": tokens or None,
    }
    if jax.process_index() != 0:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def _names(model: LanguageModel) -> dict[ModelPath, str]:
    """Names of the projections in transformers."""
    return {
        path: tensor_name((*path, "kernel"), model.config).removesuffix(".weight")
        for path in projections(model)
    }


def _keys(name: str) -> tuple[str, str]:
    """Names of the factors A (our a, transposed) and B in PEFT's file."""
    return f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight"


def _read_config(path: Path) -> dict[str, Any]:
    """The settings; ValueError if one that is set is not supported."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{path} is not of a LoRA adapter (peft_type is not LORA)")
    unset: tuple[Any, ...] = (None, False, {}, [], "none")
    features = [
        f"{name} = {value!r}"
        for name, value in config.items()
        if name not in READ | WITHOUT_EFFECT and value not in unset
    ]
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        features.append(f"init_lora_weights = {config['init_lora_weights']!r}")
    if features:
        raise ValueError(f"{path} asks for what is not supported: {', '.join(features)}")
    if missing := {"r", "lora_alpha", "target_modules"} - config.keys():
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    return config


def _describe(
    model: LanguageModel, names: dict[ModelPath, str], config: dict[str, Any]
) -> dict[ModelPath, LoRA]:
    """The adapters that the settings describe for the model, with abstract factors."""
    layers, targets = projections(model), config["target_modules"]

    def chosen(name: str, target: str) -> bool:
        return name == target or name.endswith("." + target)

    if isinstance(targets, str):
        paths = [path for path, name in names.items() if re.fullmatch(targets, name)]
    else:
        unknown = [t for t in targets if not any(chosen(name, t) for name in names.values())]
        if unknown:
            known = sorted({str(path[-1]) for path in layers})
            raise ValueError(f"target_modules {sorted(unknown)} are not among {known}")
        paths = [path for path, name in names.items() if any(chosen(name, t) for t in targets)]
    only = config.get("layers_to_transform")
    if only is not None:
        paths = [path for path in paths if path[1] in ([only] if isinstance(only, int) else only)]
    if not paths:
        raise ValueError(f"target_modules {targets!r} select no projection of the model")

    def setting(default: str, pattern: str, name: str) -> Any:
        for key, value in (config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", name):
                return value
        return config[default]

    def describe(path: ModelPath) -> LoRA:
        return LoRA(
            *layers[path].kernel.shape,
            rank=setting("r", "rank_pattern", names[path]),
            alpha=setting("lora_alpha", "alpha_pattern", names[path]),
            rank_stabilized=bool(config.get("use_rslora")),
            dropout=config.get("lora_dropout") or 0.0,
            dtype=jnp.dtype(jnp.float32),
            rngs=nnx.Rngs(0),
        )

    return {path: nnx.eval_shape(lambda path=path: describe(path)) for path in paths}


def _trained_tokens(model: LanguageModel, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tokens whose rows the adapter has, by the name of their table.

    A head that is the embedding's transpose has no rows of its own.
    """
    given = config.get("trainable_token_indices") or {}
    found: dict[str, tuple[int, ...]] = {}
    for name, ids in (given if isinstance(given, dict) else {EMBEDDING: given}).items():
        table = next((t for t in (EMBEDDING, HEAD) if t == name or t.endswith("." + name)), None)
        if table is None:
            raise ValueError(f"trainable_token_indices of {name!r}: tables are {EMBEDDING}, {HEAD}")
        check_tokens(model, ids)
        found[table] = tuple(ids)
    of_head = found.pop(HEAD, None) if model.head is None else None
    if of_head and of_head != found.get(EMBEDDING):
        raise ValueError(
            "trainable_token_indices of the head alone, or of other tokens than those of the "
            "embedding: in this model they are one table"
        )
    return found


def _take_tables(arrays: dict[str, Any]) -> dict[str, Any]:
    """Take whole tables, [V, width], out of the arrays of an adapter; by name."""
    found = {}
    for table in (EMBEDDING, HEAD):
        for suffix in TABLES:
            if (key := f"{PREFIX}{table}.{suffix}") in arrays:
                found[table] = arrays.pop(key)
    return found


def _drop_tied(arrays: dict[str, Any], file: Path) -> None:
    """Remove rows of a tied head; ValueError if they differ from the embedding's."""
    rows = arrays.pop(f"{PREFIX}{HEAD}.{ROWS}", None)
    same = arrays.get(f"{PREFIX}{EMBEDDING}.{ROWS}")
    if rows is not None and (same is None or not np.array_equal(rows, same)):
        raise ValueError(f"{file} has other rows for the head than for the embedding it is tied to")


def _put_tables(model: LanguageModel, tables: dict[str, Any]) -> None:
    """Replace the base's tables by whole tables; a tied head has none."""
    model.tables_of_adapter = bool(tables)
    if EMBEDDING in tables:
        old = model.embed.embedding
        old.set_value(jnp.asarray(tables[EMBEDDING], old.dtype))
    if HEAD in tables and (kernel := model.head_kernel) is not None:
        kernel.set_value(jnp.asarray(tables[HEAD].T, kernel.dtype))


def _compare(
    file: Path, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    """ValueError that names the first differences of the arrays found to those expected."""

    def first(keys: set[str]) -> str:
        return f"{', '.join(sorted(keys)[:3])}{' ...' if len(keys) > 3 else ''}"

    missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
    problems = []
    if missing:
        problems.append(f"{len(missing)} arrays are missing ({first(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} are not of this model ({first(unknown)})")
    wrong = [key for key in expected if key in found and expected[key] != found[key]]
    if wrong:
        key = wrong[0]
        problems.append(f"{key} has the shape {found[key]} where {expected[key]} is expected")
    if problems:
        raise ValueError(f"{file} is an adapter for another base: {'; '.join(problems)}")
