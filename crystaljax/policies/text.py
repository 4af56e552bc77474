"""A language model with its tokenizer, as something that samples and scores texts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from crystaljax.crystal import Array
from crystaljax.models.llm.decoder import Dropout, LanguageModel, Remat
from crystaljax.models.llm.likelihood import token_log_probs
from crystaljax.models.llm.lora import adapters, trained_filter
from crystaljax.parallel import make_mesh, parameter_placement
from crystaljax.text.engine import Generation
from crystaljax.text.generation import GenerationConfig, Generator, TokenGrammar
from crystaljax.text.packing import PackedTexts, per_sequence
from crystaljax.text.tokenizer import Tokenizer

Params = Any


class TextPolicy:
    """p(completion | prompt) by a language model; the trained parameters are passed in.

    Trained are the model's adapters if it has any, else all its parameters; adapters start as
    what the model came with. Parameters may be passed in a higher precision, as training keeps
    them; the network always computes with its own types.

    Args:
      model: gives its arrays away; use the policy from here on.
      mesh: devices that parameters and batches are spread over; all of them if not given.
      remat: what training computes again rather than keeps; see `decoder.Remat`.
      dropout: share of the outputs of attention and feed-forward layers that is dropped where a key
        is given, as supervised training does.
      name: what the model is called, kept with adapters as their base.

    ValueError if the tokenizer has more tokens than the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        mesh: Mesh | None = None,
        remat: Remat = "products",
        dropout: float = 0.0,
        name: str = "",
    ) -> None:
        if tokenizer.n_vocabulary() > model.config.vocabulary:
            raise ValueError(
                f"the tokenizer has {tokenizer.n_vocabulary()} tokens, and the model"
                f" {model.config.vocabulary}: resize its vocabulary first"
            )
        self.config, self.tokenizer, self.name = model.config, tokenizer, name
        self.remat, self.dropout = remat, dropout
        self.mesh = mesh or make_mesh()
        self.has_adapters = bool(adapters(model))
        self.graph, *states = nnx.split(model, trained_filter(model), ...)
        params, frozen = states
        self.start: Params = self.place(params)
        self.frozen: Params = self.place(frozen)
        self._generator: Generator | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a run and those which resume it must share."""
        digest = self.vocabulary_digest
        trained = "adapters" if self.has_adapters else "all parameters"
        described = dataclasses.asdict(self.config)
        return described | {"vocabulary_digest": digest, "trained": trained}

    @property
    def chats(self) -> bool:
        """The model has a chat template, which its prompts follow."""
        return bool(self.tokenizer.fast.chat_template)

    def place(self, tree: Any) -> Any:
        """Arrays (parameters, or a state that holds them) on the devices of the mesh."""
        placement = parameter_placement(self.mesh)
        return jax.tree.map(lambda x: jax.device_put(x, placement(np.shape(x))), tree)

    def in_own_types(self, params: Params) -> Params:
        """The parameters in the types that the network has them in."""
        return jax.tree.map(lambda x, own: x.astype(own.dtype), params, self.start)

    def network(self, params: Params, frozen: Params) -> LanguageModel:
        """The network with trained and frozen parameters, which a jitted caller gets as arguments.

        Gradients of parameters in float32 are float32, whatever the network computes in.
        """
        return nnx.merge(self.graph, self.in_own_types(params), frozen)

    def model(self, params: Params) -> LanguageModel:
        """The network with these parameters."""
        return self.network(params, self.frozen)

    def token_log_probs(
        self, params: Params, frozen: Params, packed: PackedTexts, key: Array | None = None
    ) -> tuple[Array, ...]:
        """float32 [R, T] of each block of packed texts; a key switches dropout on."""
        network = self.network(params, frozen)
        dropout = None if key is None else Dropout(key, self.dropout)
        return tuple(
            token_log_probs(network, rows, dropout and dropout.layer(block), self.remat)
            for block, rows in enumerate(packed)
        )

    def total_log_prob(
        self, params: Params, frozen: Params, packed: PackedTexts, key: Array | None = None
    ) -> Array:
        """float32 []: the sum of `token_log_probs`."""
        return sum(
            (x.sum() for x in self.token_log_probs(params, frozen, packed, key)), jnp.zeros(())
        )

    def log_probs(
        self, params: Params, frozen: Params, packed: PackedTexts, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of the completions' tokens [B, T], and which are such, bool [B, T].

        `packed` holds B = `n_samples` texts. See `training.tasks.LogProbs`.
        """
        logp = self.token_log_probs(params, frozen, packed)
        trained = [rows.trained for rows in packed]
        return per_sequence(logp, packed, n_samples), per_sequence(trained, packed, n_samples)

    def sample(
        self,
        params: Params,
        prompts: Sequence[np.ndarray],
        seed: int,
        config: GenerationConfig,
        n: int = 1,
        grammar: TokenGrammar | None = None,
        numbers: np.ndarray | None = None,
    ) -> Generation:
        """n completions of each prompt (int [length], e.g. from `Tokenizer.prompts`).

        numbers: see `text.generation.Generator`, for errors too.
        """
        if self._generator is None or not self._generator.is_of(config, grammar):
            self._generator = Generator(
                self.graph, config, self.tokenizer.end_ids, self.tokenizer, grammar, self.mesh
            )
        weights = self.in_own_types(params), self.frozen
        return self._generator(weights, prompts, seed, n, numbers=numbers)

    @property
    def vocabulary_digest(self) -> str:
        """Digest of the vocabulary, different for different tokenizers."""
        vocabulary = json.dumps(self.tokenizer.fast.get_vocab(), sort_keys=True)
        return hashlib.sha256(vocabulary.encode()).hexdigest()

    def save(self, folder: str | Path, params: Params) -> None:
        """Write the adapters as a PEFT folder, or the model as one of Hugging Face, and tokenizer.

        FileExistsError if the folder has weights already.
        """
        from crystaljax.models.llm.adapters import save_adapter
        from crystaljax.models.llm.folder import export_model

        model = self.model(params)
        if self.has_adapters:
            save_adapter(model, folder, self.name or None)
        else:
            export_model(model, folder)
        self.tokenizer.save(Path(folder))
