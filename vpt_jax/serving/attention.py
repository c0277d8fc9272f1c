"""Where a network looks: the attention in the last block of a ViT."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.data.examples import Examples
from vpt_jax.model import Context, Model
from vpt_jax.network import Network
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.tasks import Task
from vpt_jax.training import inputs
from vpt_jax.types import Tree


def attention(tuned: Classifier, examples: Examples) -> Float[Array, "B Q N"] | None:
    """`attention_of` a tuned model, on the first images."""
    trainable, stats = tuned.trainable, tuned.stats
    graphdef, _, frozen, _ = tuned.network.parts
    model = nnx.merge(graphdef, trainable, frozen, stats)
    raw = next(inputs.batches(tuned.network, examples, len(examples)))[2]
    return attention_of(model, tuned.network.normalised(jnp.asarray(raw)))


def of_task(task: Task, view: np.ndarray) -> list[Float[np.ndarray, " N"]] | None:
    """Weights of CLS over the N patches: of the backbone alone, then as it was tuned.

    Args:
        task: Of a bank.
        view: What its `view` gave.

    Returns:
        None where the network has no CLS token, or no such attention.
    """
    network = task.network
    images = network.normalised(jnp.asarray(view[None]))
    plain = _plain(network)(network.pretrained.params, images)
    tuned = task.shelf.apply(attention_of, task.slot, images)
    if plain is None or tuned is None:
        return None
    return [np.asarray(plain[0, 0]), np.asarray(tuned[0, 0])]


def _plain(network: Network) -> Callable:
    """`attention_of` the backbone alone: (params, images) to weights."""

    def run(params: Tree, images: Float[Array, "B h w 3"]):
        backbone = nnx.merge(network.pretrained.graphdef, params)
        return attention_of(Model(backbone, nnx.Module()), images)

    return network.programs.setdefault(_plain, jax.jit(run))


def attention_of(
    model: Model, images: Float[Array, "B h w 3"]
) -> Float[Array, "B Q N"] | None:
    """Weights of [CLS, P prompts] over the N patches in the last block, mean of heads.

    Returns:
        None where the network has no CLS token, or no such attention.
    """
    backbone: Any = model.backbone  # of those families that have such attention
    blocks = backbone.blocks
    last: Any = getattr(blocks[-1], "attn", None)
    first = getattr(backbone, "num_prefix", 0)
    if not hasattr(last, "query") or first < 1:
        return None
    plain = jax.eval_shape(lambda x: model.prefix(x, 1), images)
    tokens = model.prefix(images, len(blocks))
    context = Context(model.backbone, None, False)
    for edit in model.edits.values():
        tokens = edit.before_block(len(blocks) - 1, tokens, context)
    added = tokens.shape[1] - plain.shape[1]
    x = blocks[-1].norm1(tokens)
    asking = x[:, : first + added]
    query, key = (
        y.reshape(*y.shape[:2], last.heads, -1)
        for y in (last.query(asking), last.key(x))
    )
    query, key = last.placed(query, key, slice(first + added))
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores.astype(jnp.float32)).mean(1)
    # One row for CLS (the first of the prefix), one for each prompt.
    rows = jnp.concatenate([weights[:, :1], weights[:, first:]], axis=1)
    return rows[:, :, first + added :]
