"""Scaling and shifting of features (SSF: Lian et al., NeurIPS 2022, arXiv 2210.08823).

y -> scale * y + shift, per channel, behind every linear layer, norm and the patch
embedding of the backbone
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path

WRAPPED = (nnx.Linear, nnx.Conv, nnx.LayerNorm, BatchNorm)


@dataclasses.dataclass(frozen=True)
class SsfConfig:
    """SSF has no options."""


class SsfParam(nnx.Param):
    """A scale or a shift, (D,)."""


class Scaled(nnx.Module):
    """A layer whose output is scaled and shifted."""

    def __init__(self, base: Backbone, rngs: nnx.Rngs):
        self.base = base
        noise = jax.random.normal(rngs.params(), (2, _weight(base).shape[-1]))
        # The release's start: normal around 1 and 0 with deviation 0.02.
        self.scale = SsfParam(1 + 0.02 * noise[0])
        self.shift = SsfParam(0.02 * noise[1])

    def __call__(self, x: Float[Array, "... D"], *args) -> Float[Array, "... E"]:
        y = self.base(x, *args)
        scale, shift = self.scale[...].astype(y.dtype), self.shift[...].astype(y.dtype)
        lead = (1,) * (y.ndim - 1)
        return y * scale.reshape(*lead, -1) + shift.reshape(*lead, -1)

    def merged(self) -> Backbone:
        """The layer with scale and shift inside its own parameters."""
        base, scale = self.base, self.scale[...]
        weight = _weight(base)
        weight[...] *= scale.reshape((1,) * (weight.ndim - 1) + (-1,))
        if base.bias is None:
            base.bias = nnx.Param(self.shift[...])
        else:
            base.bias[...] = base.bias[...] * scale + self.shift[...]
        return base


def _weight(base: Backbone) -> nnx.Param:
    """The scale of a norm, the kernel of another layer; its last axis is the output."""
    return base.scale if hasattr(base, "scale") else base.kernel


def attach(model: Model, config: SsfConfig, rngs: nnx.Rngs) -> None:
    """Wrap every linear layer, convolution and LayerNorm of the backbone."""
    for _, module in list(nnx.iter_modules(model.backbone)):
        for name, child in list(vars(module).items()):
            if isinstance(child, WRAPPED):
                setattr(module, name, Scaled(child, rngs))


def group(path: Path, variable: nnx.Variable, config: SsfConfig, model: Model):
    """Scales, shifts and the head are trained."""
    trained = path[0] == "head" or isinstance(variable, SsfParam)
    return "trainable" if trained else "frozen"
