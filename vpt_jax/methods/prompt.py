"""Visual Prompt Tuning (Jia, Tang et al., ECCV 2022, arXiv 2203.12119, section 3).

    before block 0      [CLS, patches]          -> [CLS, P prompts, patches]
    before block i > 0  [CLS, P old, patches]   -> [CLS, P prompts of layer i, patches]

Shallow prompting does only the first, deep prompting both. Prompts get no position
embedding and enter after the backbone's embedding dropout (`src/models/vit_prompt/
vit.py:75-87` of the public code).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.model import Edit, Model
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Options of prompt tuning.

    Attributes:
        length: P, prompt tokens per prompted layer.
        deep: New prompts before every block, or only before the first.
        dropout: Rate on the prompt tokens while training, one mask per image.
        project: Channels of the stored prompts, which one shared linear layer projects
            to the backbone's width; 0 stores them at full width.
    """

    length: int = 10
    deep: bool = True
    dropout: float = 0.1
    project: int = 0

    def __post_init__(self):
        if self.length < 1:
            raise UserError(f"method.length {self.length} must be at least 1 token")
        if not 0 <= self.dropout < 1:
            raise UserError(f"method.dropout {self.dropout} must be in [0, 1)")
        if self.project < 0:
            raise UserError(f"method.project {self.project} must be 0 (off) or more")


class Prompt(nnx.Param):
    """A trained prompt, (P, D)."""


class Prompts(Edit):
    """The prompt tokens of all prompted layers, and what puts them in place."""

    def __init__(self, model: Model, config: PromptConfig, rngs: nnx.Rngs):
        backbone = model.backbone
        width = backbone.width
        stored = config.project or width
        # Bound of `src/models/vit_prompt/vit.py:57`: Xavier uniform over a patch.
        bound = math.sqrt(6 / (3 * backbone.config.patch**2 + stored))
        self.num_prefix = backbone.num_prefix
        self.tokens = nnx.List(
            [
                Prompt(
                    jax.random.uniform(
                        rngs.params(),
                        (config.length, stored),
                        minval=-bound,
                        maxval=bound,
                    )
                )
                for _ in range(len(backbone.blocks) if config.deep else 1)
            ]
        )
        self.project = nnx.data(None)
        if config.project:
            self.project = _projection(stored, width, rngs)
        self.dropout = nnx.Dropout(config.dropout)

    def before_block(
        self, i: int, tokens: Float[Array, "B N D"], *, key, train
    ) -> Float[Array, "B M D"]:
        """Insert the prompts before block 0, replace them before a deeper one."""
        if i >= len(self.tokens):
            return tokens
        prompt = self.tokens[i][...]
        if self.project is not None:
            prompt = self.project(prompt)
        prompt = jnp.broadcast_to(prompt, (tokens.shape[0], *prompt.shape))
        prompt = self.dropout(prompt, deterministic=not train, rngs=key)
        rest = self.num_prefix + (prompt.shape[1] if i > 0 else 0)
        return jnp.concatenate(
            [
                tokens[:, : self.num_prefix],
                prompt.astype(tokens.dtype),
                tokens[:, rest:],
            ],
            axis=1,
        )


def attach(model: Model, config: PromptConfig, rngs: nnx.Rngs) -> None:
    """Add the prompts as an edit; the backbone itself stays as it is."""
    model.edits["prompt"] = Prompts(model, config, rngs)


def group(path: Path, variable: nnx.Variable, config: PromptConfig, model: Model):
    """Prompts, their projection and the head are trained."""
    return (
        "trainable"
        if path[0] == "head" or path[:2] == ("edits", "prompt")
        else ("frozen")
    )


def _projection(stored: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Kaiming normal by fan out; the bias as PyTorch's default (`vit.py:44-50`)."""
    bound = 1 / math.sqrt(stored)

    def bias_init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel_init = nnx.initializers.variance_scaling(2, "fan_out", "normal")
    return nnx.Linear(
        stored, width, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs
    )
