"""Gated prompts for self-supervised ViTs (Yoo et al., ICML 2023, arXiv 2306.05067).

    behind block i, i < L - 1   prompts = g_i * (the block's output)
                                          + (1 - g_i) * (its input)
    in block i                  attention logits / temperature_i

with g_i = sigmoid(gate_i), one number per block.

One prompt goes in before block 0; the gates choose the blocks that may change it. The
gate behind the last block would change nothing that is read.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.methods import prompt
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path

TEMPERATURES = (0.01, 10.0)  # the release's bounds


@dataclasses.dataclass(frozen=True)
class GatedConfig:
    """Options of gated prompts.

    Attributes:
        length: P, prompt tokens.
        gate_init: Gates start at sigmoid(-gate_init); the release's default.
        dropout: Rate on the prompt tokens while training.
    """

    length: int = 10
    gate_init: float = 10.0
    dropout: float = 0.1

    def __post_init__(self):
        prompt.check_common(self)


class Gate(nnx.Param):
    """The gate or the temperature of a block, a scalar."""


class Gated(nnx.Module):
    """A block that passes on a mixture of the prompts before and behind it."""

    def __init__(self, block: Backbone, tokens: slice, config: GatedConfig):
        self.block = block
        self.start, self.stop = tokens.start, tokens.stop
        self.gate = Gate(jnp.full((), -config.gate_init, jnp.result_type(float)))

    def __call__(
        self, x: Float[Array, "B N D"], read: slice = slice(None), **kwargs
    ) -> Float[Array, "B M D"]:
        out = self.block(x, read, **kwargs)
        here = slice(self.start, self.stop)
        gate = jax.nn.sigmoid(self.gate[...]).astype(x.dtype)
        mixed = gate * out[:, here] + (1 - gate) * x[:, here]
        parts = [out[:, : self.start], mixed, out[:, self.stop :]]
        return jnp.concatenate(parts, axis=1)


class Tempered(nnx.Module):
    """A query projection over a temperature, which so divides the logits."""

    def __init__(self, query: Backbone):
        self.query = query
        self.temperature = Gate(jnp.ones((), jnp.result_type(float)))

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        temperature = jnp.clip(self.temperature[...], *TEMPERATURES)
        return self.query(x) / temperature.astype(x.dtype)


def attach(model: Model, config: GatedConfig, rngs: nnx.Rngs) -> None:
    """Add one shallow prompt; wrap the query projections and all but the last block."""
    backbone = model.backbone
    if hasattr(backbone, "stages"):
        raise UserError(f"method gated needs a ViT; {type(backbone).__name__} is none")
    shallow = prompt.PromptConfig(
        length=config.length, deep=False, dropout=config.dropout
    )
    edit = prompt.Prompts(model, shallow, rngs)
    model.add_edit("prompt", edit)
    tokens = slice(edit.num_prefix, edit.num_prefix + config.length)
    for i, block in enumerate(backbone.blocks):
        if not hasattr(block, "attn"):
            raise UserError("method gated needs blocks with attention; name it last")
        block.attn.query = Tempered(block.attn.query)
        if i < len(backbone.blocks) - 1:
            backbone.blocks[i] = Gated(block, tokens, config)


def group(path: Path, variable: nnx.Variable, config: GatedConfig, model: Model):
    """Prompts, gates, temperatures and the head are trained."""
    if isinstance(variable, Gate):
        return "trainable"
    return prompt.group(path, variable, config, model)
