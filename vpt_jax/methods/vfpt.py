"""Visual Fourier Prompt Tuning (Zeng et al., NeurIPS 2024, arXiv 2411.01327).

    prompts (P, D): a part of the P tokens -> real part of its 2-D Fourier transform

over tokens and channels; otherwise as VPT.
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.methods import prompt
from vpt_jax.model import Context, Model
from vpt_jax.types import Size


@dataclasses.dataclass(frozen=True)
class VfptConfig:
    """Options of Fourier prompts.

    Attributes:
        fourier: Part of the tokens that are transformed, in (0, 1].
        length, deep, dropout: As for the method `prompt`.
    """

    length: int = 10
    deep: bool = True
    fourier: float = 0.5
    dropout: float = 0.1

    def __post_init__(self):
        prompt.check_common(self)
        if not 0 < self.fourier <= 1:
            raise UserError(f"method.fourier {self.fourier} must be in (0, 1]")


class FourierTokens(prompt.PromptTokens):
    """Prompt tokens of which the first few are transformed, after dropout."""

    def __init__(self, *args, transformed: int):
        super().__init__(*args)
        self.transformed = transformed

    def __call__(
        self,
        prompt: Float[Array, "P D"],
        batch: Size,
        dtype,
        context: Context,
        **kwargs,
    ) -> Float[Array, "B P D"]:
        wide = jnp.result_type(float)
        tokens = super().__call__(prompt, batch, wide, context, **kwargs)
        first, rest = tokens[:, : self.transformed], tokens[:, self.transformed :]
        first = jnp.fft.fft2(first).real
        return jnp.concatenate([first, rest], axis=1).astype(dtype)


def attach(model: Model, config: VfptConfig, rngs: nnx.Rngs) -> None:
    """Add prompts as VPT does, with a part transformed."""
    plain = prompt.PromptConfig(
        length=config.length, deep=config.deep, dropout=config.dropout
    )
    transformed = max(1, round(config.fourier * config.length))
    tokens = functools.partial(FourierTokens, transformed=transformed)
    model.add_edit("prompt", prompt.Prompts(model, plain, rngs, tokens))


group = prompt.group
