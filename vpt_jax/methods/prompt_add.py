"""Prompts that are added to the tokens (paper, section 4.3 "Prompt location": add).

    before each prompted block   tokens (B, N, D) + prompt (N, D), or (1, D) for all

Source: locations `add` and `add-1` of `vit_ablations.py:226-243` of the public code;
the CLS token is added to as well.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.methods import prompt
from vpt_jax.model import Context, Edit, Model
from vpt_jax.types import Backbone, Tree


@dataclasses.dataclass(frozen=True)
class AddConfig:
    """Options of added prompts.

    Attributes:
        single: One vector for all tokens, not one for each.
        deep, layers, dropout, project: As for the method `prompt`.
    """

    single: bool = False
    deep: bool = True
    layers: int = 0
    dropout: float = 0.1
    project: int = 0

    def __post_init__(self):
        prompt.check_common(self)


class AddedPrompts(Edit):
    """The prompts of all prompted layers."""

    def __init__(self, model: Model, config: AddConfig, rngs: nnx.Rngs):
        backbone = model.backbone
        self.blocks = prompt.prompted(config, backbone)
        if hasattr(backbone, "stages") and not config.single:
            raise UserError(
                "method prompt_add needs stages of one size; on "
                f"{type(backbone).__name__} set method.single=True"
            )
        self.prompts = prompt.PromptTokens(
            [backbone.blocks[i] for i in self.blocks],
            functools.partial(prompt.uniform_bound, backbone),
            config,
            1 if config.single else _num_tokens(backbone),
            rngs,
        )

    def layer(self, i: int) -> tuple[str, Tree] | None:
        """Add the prompts of this block."""
        if i not in self.blocks:
            return None
        return "add", self.prompts.tokens[i - self.blocks.start][...]

    def change(
        self, name: str, tensors: Tree, tokens: Float[Array, "B N D"], context: Context
    ) -> Float[Array, "B N D"]:
        """The sum, in the backbone's type."""
        return tokens + self.prompts(tensors, tokens.shape[0], tokens.dtype, context)


def attach(model: Model, config: AddConfig, rngs: nnx.Rngs) -> None:
    """Add the prompts as an edit."""
    model.add_edit("prompt", AddedPrompts(model, config, rngs))


group = prompt.group


def _num_tokens(backbone: Backbone) -> int:
    side = backbone.config.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(backbone.embed, image).shape[1]
