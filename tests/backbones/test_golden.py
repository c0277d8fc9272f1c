"""Logits of the public PyTorch implementations on tiny random networks.

The backbones lie in tests/golden under their releases' own state-dict names.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import backbones, checkpoints
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.types import count, unflatten

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def config_of(arch: dict, size: int):
    family = arch["family"]
    if family in ("mae", "moco"):
        keys = ("patch", "hidden", "layers", "heads", "mlp")
        kind = {"mae": MAEConfig, "moco": MoCoConfig}[family]
        return kind(*(arch[key] for key in keys), size)
    if family == "swin":
        return SwinConfig(
            arch["embed_dim"],
            tuple(arch["depths"]),
            tuple(arch["num_heads"]),
            arch["window_size"],
            arch["patch_size"],
            size,
        )
    if family == "convnext":
        return ConvNeXtConfig(tuple(arch["depths"]), tuple(arch["dims"]), size)
    return ResNetConfig(
        tuple(arch["layers"]),
        arch["expansion"] == 4,
        tuple(arch["planes"]),
        arch["stem"],
        size,
    )


def load(path: pathlib.Path, config) -> nnx.Module:
    graphdef, state = nnx.split(backbones.abstract(config))
    shapes = nnx.as_pure(state)
    arrays = checkpoints.load_arrays(path, config, shapes, np.float32)
    arrays = {path: jnp.asarray(array) for path, array in arrays.items()}
    return nnx.merge(graphdef, unflatten(shapes, arrays))


@jax.jit
def features(model, images):
    tokens = model.embed(images)
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    return model.pool(model.blocks[-1](tokens, model.reads))


@pytest.mark.parametrize("family", ["mae", "moco", "swin", "convnext", "resnet"])
def test_logits(family):
    with np.load(GOLDEN / f"{family}_linear.npz") as case:
        meta = json.loads(bytes(case["meta"]))
        images, wanted = case["images_nhwc"], case["logits_before"]
        weight = case["init/head.last_layer.weight"]
        bias = case["init/head.last_layer.bias"]
    config = config_of(meta["arch"], meta["image_size"])
    assert config.problem(meta["image_size"]) is None
    model = load(GOLDEN / meta["backbone"], config)
    with jax.default_matmul_precision("highest"):
        found = features(model, images) @ weight.T + bias[None]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    params = count(nnx.as_pure(nnx.state(model, nnx.Param)))
    assert params + meta["trainable_params"] == meta["total_params"]
