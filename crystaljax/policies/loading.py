"""Policies of crystals from the folders of models, whatever their kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystaljax.checkpoints import METADATA_FILE, load_metadata
from crystaljax.policies.base import Params, Policy
from crystaljax.policies.wyckoff import load_wyckoff

if TYPE_CHECKING:
    from crystaljax.policies.crystal_text import CrystalTextPolicy
    from crystaljax.policies.text_metadata import TextMetadata
    from crystaljax.text.loading import TextModelConfig

CRYSTALS_FILE, ADAPTER_FILE, MODEL_FILE = "crystals.json", "adapter_config.json", "config.json"
"""Files that tell a language model that writes crystals, an adapter, any Hugging Face model."""


def is_wyckoff(folder: str | Path) -> bool:
    """A folder is that of a Wyckoff transformer, and not of a language model."""
    return (Path(folder).expanduser() / METADATA_FILE).is_file()


def load_policy(
    folder: str | Path,
    format: str = "",
    templates: Sequence[str | Path] = (),
    model: TextModelConfig | None = None,
) -> tuple[Policy, Params]:
    """A policy and its parameters from the folder of a model of either kind.

    A Wyckoff transformer has metadata.json. A language model that writes crystals has crystals.json
    beside a model of Hugging Face, or beside an adapter of PEFT, which finds its base by the name
    in there: a folder, from here or from the adapter's, or a name on the hub. Any other model of
    Hugging Face, a folder or a name on the hub, is loaded if format and templates are given.

    Args:
      format: the tokenization that the model is expected to have. A format from a user's file,
        FILE.py:CLASS, is only run if it is given here.
      templates: prompt templates, by name or file, in place of the model's own.
      model: how a language model is held (precision, quantised, mesh, `base` of an adapter).

    FileNotFoundError if there is no model; ValueError if it has another tokenization, a tokenizer
    that does not fit it, or does not say how it writes crystals; and those of
    `checkpoints.load_metadata`, `text.loading.load_text_policy`.
    """
    path = Path(folder).expanduser()
    if is_wyckoff(path):
        if format not in ("", "wyckoff"):
            raise _other(folder, "wyckoff", format)
        if templates:
            raise ValueError(f"{folder} is a Wyckoff transformer: it takes no prompt templates")
        return load_wyckoff(path)
    policy = _load_text(path, format, templates, model)
    return policy, policy.texts.start


def check_folder(folder: str | Path) -> None:
    """Errors of `load_policy` that can be told before any weights are read."""
    path = Path(folder).expanduser()
    if is_wyckoff(path):
        load_metadata(path)
    else:
        read_metadata(path)


def _load_text(
    folder: Path, format: str, templates: Sequence[str | Path], model: TextModelConfig | None
) -> CrystalTextPolicy:
    """A language model that writes crystals."""
    metadata = read_metadata(folder, format, bool(templates))
    # Only now: a folder that is no model is told of without the packages of language models too.
    from crystaljax.policies.crystal_text import CrystalTextPolicy
    from crystaljax.text.loading import TextModelConfig, load_text_policy
    from crystaljax.text.prompts import load_template

    if templates:
        chosen = tuple(load_template(name) for name in templates)
        metadata = dataclasses.replace(metadata, templates=chosen)
    config = model or TextModelConfig()
    if (folder / ADAPTER_FILE).is_file():
        base = config.base or find_base(folder, metadata)
        config = dataclasses.replace(config, base=base, adapter=str(folder))
    else:
        config = dataclasses.replace(config, base=str(folder))
        if folder.is_dir():
            _check_vocabulary(folder)
    texts = load_text_policy(config)
    if metadata.vocabulary_digest not in ("", texts.vocabulary_digest):
        raise ValueError(
            f"{folder} has another tokenizer than the one its model was trained with: take the"
            " tokenizer's files from where the model came from"
        )
    return CrystalTextPolicy(texts, metadata)


def read_metadata(folder: Path, format: str = "", with_templates: bool = False) -> TextMetadata:
    """A language model's format and prompts, from its folder or as given; errors: `load_policy`."""
    from crystaljax.policies.text_metadata import TextMetadata
    from crystaljax.tokenizations.registry import read_specification

    if not (folder / CRYSTALS_FILE).is_file():
        is_name = not folder.exists() and len(folder.parts) <= 2
        if not any((folder / name).is_file() for name in (ADAPTER_FILE, MODEL_FILE)) and not (
            is_name and format
        ):
            raise FileNotFoundError(
                f"no model in {folder}: it has neither {METADATA_FILE} (of a Wyckoff transformer)"
                f" nor {CRYSTALS_FILE} (of a language model that writes crystals), {ADAPTER_FILE}"
                f" or {MODEL_FILE} (of any other, asked for crystals in a format that is given)"
            )
        if not format or not with_templates:
            raise ValueError(
                f"{folder} has no {CRYSTALS_FILE}, which says how the model writes crystals: give a"
                " format and prompt templates"
            )
        return TextMetadata.of(format, templates=())
    metadata = TextMetadata.read(folder)
    own, (name, options) = metadata.format, read_specification(format)
    if ":" in own and not name:
        raise ValueError(
            f"the model in {folder} writes crystals in a format of a user's file, {own}, which is"
            " code and only run if you say so: give --setup.tokenization FILE.py:CLASS"
        )
    same = name.rpartition(":")[2] == own.rpartition(":")[2] and (":" in name) == (":" in own)
    kept = metadata.format_options
    if name and not (same and all(kept.get(key) == x for key, x in options.items())):
        written = ",".join(f"{key}={kept.get(key)!r}" for key in options)
        raise _other(folder, f"{own}:{written}" if written else own, format)
    return dataclasses.replace(metadata, format=name or own)


def find_base(folder: Path, metadata: TextMetadata | None = None) -> str:
    """Folder or name on the hub of the model that an adapter in `folder` belongs to.

    ValueError if the adapter names none.
    """
    named = _read_json(folder / ADAPTER_FILE).get("base_model_name_or_path") or ""
    names = [name for name in dict.fromkeys([metadata.base if metadata else "", named]) if name]
    if not names:
        raise ValueError(f"the adapter in {folder} does not name its base: give it (base)")
    places = [place for name in names for place in (Path(name).expanduser(), folder / name)]
    found = next((place for place in places if (place / MODEL_FILE).is_file()), None)
    if found is not None:
        return str(found)
    hub = [name for name in names if not Path(name).is_absolute() and len(Path(name).parts) <= 2]
    if not hub or hub[-1].startswith("."):
        raise FileNotFoundError(
            f"the base of the adapter in {folder} is in none of {', '.join(map(str, places))}: give"
            " its folder (base)"
        )
    return hub[-1]


def _check_vocabulary(folder: Path) -> None:
    """ValueError if a folder's tokenizer has more tokens than its model."""
    from crystaljax.models.llm.folder import load_config
    from crystaljax.text.tokenizer import Tokenizer

    n_tokens = Tokenizer.load(folder).n_vocabulary()
    n_rows = load_config(folder).vocabulary
    if n_tokens > n_rows:
        raise ValueError(
            f"the tokenizer in {folder} has {n_tokens} tokens, and the model {n_rows}: they do not"
            " belong together"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings")
    return content


def _other(folder: str | Path, own: str, asked: str) -> ValueError:
    return ValueError(
        f"the model in {folder} has the tokenization {own}, not {asked}: give another model, or"
        " leave the tokenization out"
    )
