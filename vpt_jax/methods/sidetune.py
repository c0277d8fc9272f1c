"""Side-tuning: a small network beside the frozen backbone (Zhang et al., ECCV 2020).

    features = s * backbone(images) + (1 - s) * side(images),   s = sigmoid(alpha)

`side` is AlexNet's convolutions (torchvision) and a linear layer 9,216 to D without
bias; alpha starts at 0 and all of it is trained. Paper, section 4.1 "Sidetune"; public
code: `src/models/vit_models.py:51-61,168-179`, there with ImageNet weights.
"""

import dataclasses
import pathlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vpt_jax.errors import UserError
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path

# torchvision's index in `features`: in, out, kernel, stride, padding, pooled behind
LAYERS = {
    0: (3, 64, 11, 4, 2, True),
    3: (64, 192, 5, 1, 2, True),
    6: (192, 384, 3, 1, 1, False),
    8: (384, 256, 3, 1, 1, False),
    10: (256, 256, 3, 1, 1, True),
}
GRID = 6  # what the features are averaged to


@dataclasses.dataclass(frozen=True)
class SidetuneConfig:
    """Options of side-tuning.

    Attributes:
        side_weights: A `.safetensors` file of torchvision's AlexNet (its state dict:
            `features.0.weight` ...), or 'random'.
    """

    side_weights: str = "random"


class AlexNetFeatures(nnx.Module):
    """Images (B, h, w, 3), h and w at least 63 px, to (B, 9216) in torch's order."""

    def __init__(self, *, dtype, rngs: nnx.Rngs):
        self.features = nnx.Dict(
            {
                str(n): nnx.Conv(
                    i,
                    o,
                    (size, size),
                    stride,
                    padding=pad,
                    dtype=dtype,
                    param_dtype=jnp.result_type(float),
                    rngs=rngs,
                )
                for n, (i, o, size, stride, pad, _) in LAYERS.items()
            }
        )

    def __call__(self, x: Float[Array, "B h w 3"]) -> Float[Array, "B F"]:
        for n, (*_, pooled) in LAYERS.items():
            x = jax.nn.relu(self.features[str(n)](x))
            if pooled:
                x = nnx.max_pool(x, (3, 3), (2, 2))
        rows, columns = (_averaging(size, GRID) for size in x.shape[1:3])
        x = jnp.einsum("yh,xw,bhwc->bcyx", rows, columns, x)
        return x.reshape(x.shape[0], -1)


class Beside(nnx.Module):
    """A piece that lets the side features pass."""

    def __init__(self, block: Backbone):
        self.block = block

    def __call__(self, x, read: slice = slice(None), **kwargs):
        tokens, side = x
        return self.block(tokens, read, **kwargs), side


class SideTuned(nnx.Module):
    """A backbone and a side network; what flows is (tokens, side features)."""

    def __init__(self, base: Backbone, rngs: nnx.Rngs):
        self.base = base
        self.config, self.dtype, self.width = base.config, base.dtype, base.width
        self.reads, self.has_statistics = base.reads, base.has_statistics
        self.side = AlexNetFeatures(dtype=base.dtype, rngs=rngs)
        self.project = nnx.Linear(
            LAYERS[10][1] * GRID**2,
            base.width,
            use_bias=False,
            dtype=base.dtype,
            param_dtype=jnp.result_type(float),
            rngs=rngs,
        )
        self.alpha = nnx.Param(jnp.zeros((), jnp.result_type(float)))

    @property
    def blocks(self):
        """Those of the backbone."""
        return self.base.blocks

    @property
    def pieces(self) -> list[Beside]:
        """Those of the backbone, each beside the side features."""
        return [Beside(piece) for piece in self.base.pieces]

    def embed(self, images: Float[Array, "B h w 3"], **kwargs):
        """(tokens, side features)."""
        side = self.project(self.side(images.astype(self.dtype)))
        return self.base.embed(images, **kwargs), side

    def pool(self, x) -> Float[Array, "B D"]:
        """The mixture of the features of both."""
        tokens, side = x
        share = jax.nn.sigmoid(self.alpha[...]).astype(side.dtype)
        return share * self.base.pool(tokens) + (1 - share) * side


def attach(model: Model, config: SidetuneConfig, rngs: nnx.Rngs) -> None:
    """Put the side network beside the backbone."""
    if len(model.edits):
        raise UserError("method sidetune cannot be combined with prompts")
    if model.backbone.config.image_size < 63:
        raise UserError(
            f"method sidetune needs images of at least 63 px for AlexNet, not "
            f"{model.backbone.config.image_size}"
        )
    model.backbone = SideTuned(model.backbone, rngs)


def not_dense(config: SidetuneConfig) -> str:
    """Why no head can read the tokens of the image."""
    return "a second network is mixed with its features"


def group(path: Path, variable: nnx.Variable, config: SidetuneConfig, model: Model):
    """The side network, its projection, alpha and the head are trained."""
    trained = path[0] == "head" or path[1] in ("side", "project", "alpha")
    return "trainable" if trained else "frozen"


def initialise(model: Model, config: SidetuneConfig, batches: Iterable) -> None:
    """Read the side network's weights; the images are not needed."""
    if config.side_weights == "random":
        return
    path = pathlib.Path(config.side_weights)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"method.side_weights {path} cannot be read: {error}"
        ) from error
    for n in LAYERS:
        conv = model.backbone.side.features[str(n)]
        for name, leaf, axes in (
            (f"features.{n}.weight", conv.kernel, (2, 3, 1, 0)),
            (f"features.{n}.bias", conv.bias, (0,)),
        ):
            if name not in tensors:
                raise UserError(f"method.side_weights {path} has no {name}")
            value = (
                tensors[name].transpose(axes) if tensors[name].ndim == len(axes) else 0
            )
            if np.shape(value) != leaf.shape:
                raise UserError(
                    f"method.side_weights {path}: {name} has shape "
                    f"{tensors[name].shape}, which is not AlexNet's"
                )
            leaf[...] = jnp.asarray(value, leaf.dtype)


def _averaging(size: int, out: int) -> Float[np.ndarray, "{out} {size}"]:
    """Adaptive average pooling of one axis as a matrix (torch's bounds)."""
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
