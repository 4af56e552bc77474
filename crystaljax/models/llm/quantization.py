"""Quantisation of a language model's blocks."""

from __future__ import annotations

from flax import nnx

from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.linear import Format, QuantizedKernel, tile_rows
from crystaljax.models.llm.lora import projections


def quantize(model: LanguageModel, format: Format, tile: int = 0) -> None:
    """Quantise the projections of the blocks; embeddings, norms, biases and head are unchanged.

    One kernel at a time, so that no second copy of the model is made. `tile` is the number of input
    rows that share a scale; 0 means 64 in NF4, and all rows (one scale per output) in int8.
    Adapters are kept. ValueError if a kernel is quantised already or `tile` does not divide
    its inputs.
    """
    plain = {}
    for path, layer in projections(model).items():
        name = ".".join(map(str, path))
        if isinstance(layer.kernel, QuantizedKernel):
            raise ValueError(f"{name} is quantised already, as {layer.kernel.format}")
        try:
            tile_rows(layer.kernel.shape, format, tile)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        plain[path] = layer.kernel
    for path, layer in projections(model).items():
        layer.kernel = QuantizedKernel(plain.pop(path).get_value(), format, tile)


def dequantize(model: LanguageModel) -> None:
    """Replace quantised kernels by plain ones, in the type that they were quantised from."""
    for layer in projections(model).values():
        if isinstance(layer.kernel, QuantizedKernel):
            layer.kernel = nnx.Param(layer.kernel.dense())
