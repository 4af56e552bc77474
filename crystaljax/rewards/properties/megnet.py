"""The MEGNet network in JAX (Chen et al., Chem. Mater. 31, 3564 (2019)), as matgl trained it.

Edges, nodes and the state of a graph are updated in turn, three times. The property is predicted
from the state and from attention-weighted sums (Set2Set) of the nodes and of the edges. All
functions are pure functions of arrays: a group of cells is one graph of static shape.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array, Cells
from crystaljax.rewards.potentials.edges import Graph, Room, build_graph, edge_vectors

N_SET2SET = 2
"""Steps of Set2Set. The band-gap model's file says 3, and was trained with 2: with 3 its mean
error on the gapped crystals of MP-20 is 0.98 eV, with 2 it is 0.33 eV."""

Layers = list[tuple[Array, Array]]
"""Weight [n_in, n_out] and bias [n_out] of each layer."""


class LSTM(NamedTuple):
    """One cell of width D; gates in the order input, forget, cell, output."""

    input: Array
    """float32 [2D, 4D]"""
    hidden: Array
    """float32 [D, 4D]"""
    bias: Array
    """float32 [4D]"""


class Network(NamedTuple):
    """Weights; D = 32 features of edges, nodes and states."""

    embedding: Array
    """float32 [89, 16]: of elements."""
    centers: Array
    """float32 [100]: of the Gaussians that a distance is expanded in, Å."""
    width: Array
    """float32 []: factor of the squared distance to a centre in their exponent, 1/Å²."""
    encoders: dict[str, Layers]
    """Layers from "edge", "node" and "state" to D features."""
    blocks: list[dict[str, Layers]]
    """Each with "edge", "node" and "state" (empty in the first), and the same after "conv_"."""
    node_set2set: LSTM
    edge_set2set: LSTM
    output: Layers


class Model(NamedTuple):
    """A network, its cutoff and elements, and the scale of its output."""

    network: Network
    cutoff: float
    """Å"""
    index: Array
    """int32 [119]: the row of `embedding` of each element; -1 for those it does not know."""
    state: Array
    """float32 [n]: the state that every graph starts from."""
    mean: float
    std: float


class NetworkOutput(NamedTuple):
    """Predictions of the model for G cells."""

    value: Array
    """float32 [G]: the property."""
    descriptor: Array
    """float32 [G, 5D]: descriptors that it was predicted from."""
    volume: Array
    """float32 [G]: Å³ per atom."""
    closest: Array
    """float32 [G]: see `edges.Graph`."""
    isolated: Array
    """int32 [G]: atoms without a neighbour within the cutoff."""
    fits: Array
    """bool []: see `edges.Graph`."""


@partial(jax.jit, static_argnames="room")
def evaluate(model: Model, cells: Cells, room: Room) -> NetworkOutput:
    """Evaluate the model on G cells; those without atoms (in any box) are padding."""
    graph = build_graph(cells, model.cutoff, room)
    edge_cell = jnp.where(graph.is_edge, graph.cell[graph.receiver], room.cells)
    with jax.default_matmul_precision("highest"):
        distance = jnp.linalg.norm(edge_vectors(graph, cells.matrix), axis=-1)
        descriptor = describe(model, graph, distance, edge_cell, room.cells)
        value = mlp(model.network.output, descriptor, activate_last=False)[:, 0]
    degree = jnp.zeros(room.nodes, jnp.int32).at[graph.receiver].add(graph.is_edge)
    alone = (degree == 0) & (graph.cell < room.cells)
    isolated = jnp.zeros(room.cells, jnp.int32).at[graph.cell].add(alone, mode="drop")
    scaled = value * model.std + model.mean
    volume = jnp.abs(jnp.linalg.det(cells.matrix)) / jnp.maximum(cells.n_atoms, 1)
    return NetworkOutput(scaled, descriptor, volume, graph.closest, isolated, graph.fits)


def describe(model: Model, graph: Graph, distance: Array, edge_cell: Array, n_cells: int) -> Array:
    """Descriptors float32 [G, 5D] of the G cells of a graph: nodes, edges and state.

    `distance` [E] in Å; `edge_cell` int [E]: which cell each edge is of, G where there is none.
    """
    network = model.network
    gaussians = jnp.exp(-network.width * (distance[:, None] - network.centers) ** 2)
    edge = mlp(network.encoders["edge"], gaussians)
    node = mlp(network.encoders["node"], network.embedding[model.index[graph.species]])
    state = mlp(network.encoders["state"], model.state)
    state = jnp.broadcast_to(state, (n_cells, *state.shape))
    for block in network.blocks:
        update = _convolve(block, graph, edge_cell, edge, node, state)
        edge, node, state = edge + update[0], node + update[1], state + update[2]
    nodes = set2set(network.node_set2set, node, graph.cell, n_cells)
    edges = set2set(network.edge_set2set, edge, edge_cell, n_cells)
    return jnp.concatenate([nodes, edges, state], axis=-1)


def _convolve(
    block: dict[str, Layers],
    graph: Graph,
    edge_cell: Array,
    edge: Array,
    node: Array,
    state: Array,
) -> tuple[Array, Array, Array]:
    """Updates of edges [E, D], nodes [A, D] and states [G, D].

    An edge's message goes to the second of its two nodes, as in matgl before 2.0, with which these
    weights were trained (matgl 4 sends it to the first).
    """
    edge, node, state = (
        mlp(block[name], x) for name, x in (("edge", edge), ("node", node), ("state", state))
    )
    ends = [node[graph.sender], node[graph.receiver]]
    edge = mlp(block["conv_edge"], jnp.concatenate([*ends, edge, state[edge_cell]], axis=-1))
    to = jnp.where(graph.is_edge, graph.receiver, len(node))
    received = segment_mean(edge, to, len(node))
    node = mlp(block["conv_node"], jnp.concatenate([node, received, state[graph.cell]], axis=-1))
    means = [segment_mean(edge, edge_cell, len(state)), segment_mean(node, graph.cell, len(state))]
    state = mlp(block["conv_state"], jnp.concatenate([state, *means], axis=-1))
    return edge, node, state


def mlp(layers: Layers, x: Array, activate_last: bool = True) -> Array:
    """Dense layers with softplus(x) − log 2 after each; after the last only if `activate_last`."""
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if activate_last or i < len(layers) - 1:
            x = jax.nn.softplus(x) - jnp.log(2.0)
    return x


def segment_mean(x: Array, segment: Array, n: int) -> Array:
    """Means [n, D] of rows of x [N, D] by segment int [N] (n: ignored); 0 for empty segments."""
    total = jnp.zeros((n, x.shape[-1])).at[segment].add(x, mode="drop")
    count = jnp.zeros(n).at[segment].add(1.0, mode="drop")
    return total / jnp.maximum(count, 1)[:, None]


def set2set(lstm: LSTM, x: Array, segment: Array, n: int) -> Array:
    """Set2Set (Vinyals et al., arXiv 1511.06391) of x [N, D] by segment int [N]: float32 [n, 2D].

    An LSTM's output [n, D] is the query. The softmax over a segment of its products with x gives
    the weights of x, and the weighted sum is part of the LSTM's next input. Rows of segment n are
    ignored.
    """
    width = x.shape[-1]
    hidden = memory = jnp.zeros((n, width))
    result = jnp.zeros((n, 2 * width))
    for _ in range(N_SET2SET):
        gates = result @ lstm.input + hidden @ lstm.hidden + lstm.bias
        entry, forget, cell, output = jnp.split(gates, 4, axis=-1)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(entry) * jnp.tanh(cell)
        hidden = jax.nn.sigmoid(output) * jnp.tanh(memory)
        score = (x * hidden[segment]).sum(-1)
        highest = jnp.full(n, -jnp.inf).at[segment].max(score, mode="drop")
        weight = jnp.exp(score - highest[segment])
        norm = jnp.zeros(n).at[segment].add(weight, mode="drop")
        total = jnp.zeros((n, width)).at[segment].add(weight[:, None] * x, mode="drop")
        attended = total / jnp.where(norm > 0, norm, 1)[:, None]
        result = jnp.concatenate([hidden, attended], axis=-1)
    return result


def network_from(tensors: dict[str, Any], width: float) -> Network:
    """The network of a matgl MEGNet's state dictionary; KeyError if a tensor is missing."""

    def layers(prefix: str) -> Layers:
        numbers = sorted(
            int(name[len(prefix) + 8 :].split(".")[0])
            for name in tensors
            if name.startswith(f"{prefix}.layers.") and name.endswith(".weight")
        )
        names = [f"{prefix}.layers.{i}" for i in numbers]
        return [
            (jnp.asarray(tensors[f"{name}.weight"].T), jnp.asarray(tensors[f"{name}.bias"]))
            for name in names
        ]

    def lstm(prefix: str) -> LSTM:
        bias = tensors[f"{prefix}.bias_ih_l0"] + tensors[f"{prefix}.bias_hh_l0"]
        into, within = tensors[f"{prefix}.weight_ih_l0"], tensors[f"{prefix}.weight_hh_l0"]
        return LSTM(jnp.asarray(into.T), jnp.asarray(within.T), jnp.asarray(bias))

    kinds = ("edge", "node", "state")
    n_blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    return Network(
        embedding=jnp.asarray(tensors["embedding.layer_node_embedding.weight"]),
        centers=jnp.asarray(tensors["bond_expansion.rbf.centers"]),
        width=jnp.float32(width),
        encoders={kind: layers(f"{kind}_encoder") for kind in kinds},
        blocks=[
            {kind: layers(f"blocks.{i}.{kind}_func") for kind in kinds}
            | {f"conv_{kind}": layers(f"blocks.{i}.conv.{kind}_func") for kind in kinds}
            for i in range(n_blocks)
        ],
        node_set2set=lstm("node_s2s.lstm"),
        edge_set2set=lstm("edge_s2s.lstm"),
        output=layers("output_proj"),
    )
