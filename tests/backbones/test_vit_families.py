"""What sets each relative of the ViT apart, on tiny shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import backbones
from vpt_jax.backbones import positions
from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.layers import DropPath
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.vit import ViTConfig

SHAPE = (4, 8, 2, 2, 16, 8)  # patch, width, depth, heads, MLP, image
IMAGES = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
FAMILIES = {
    "vit": (ViTConfig(*SHAPE), 5, 1),
    "mae": (MAEConfig(*SHAPE), 5, 1),
    "moco": (MoCoConfig(*SHAPE), 5, 1),
    "dinov2": (DINOv2Config(*SHAPE), 5, 1),
    "dinov2_reg": (DINOv2Config(*SHAPE, registers=2, swiglu=True), 7, 3),
    "clip": (CLIPConfig(*SHAPE), 5, 1),
    "siglip": (SigLIPConfig(*SHAPE), 4, 0),
    "dinov3": (DINOv3Config(*SHAPE, registers=2), 7, 3),
    "pe": (PEConfig(*SHAPE[:1], 16, *SHAPE[2:], native=3), 5, 1),
    "eva02": (EVA02Config(*SHAPE, normed=True), 5, 1),
}


def build(config):
    model = backbones.FAMILIES[type(config)](config, rngs=nnx.Rngs(0))
    # Norms and scales of a fresh network are 1 and 0: nothing would show.
    rng = np.random.default_rng(1)
    state = jax.tree.map(
        lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype),
        nnx.state(model),
    )
    nnx.update(model, state)
    return model


def features(model, images):
    tokens = model.embed(images)
    for block in model.pieces[:-1]:
        tokens = block(tokens)
    return model.pool(model.pieces[-1](tokens, model.reads))


@pytest.mark.parametrize("name", FAMILIES)
def test_interface(name):
    config, num_tokens, num_prefix = FAMILIES[name]
    model = build(config)
    tokens = model.embed(IMAGES)
    assert tokens.shape == (3, num_tokens, config.width)
    assert model.num_prefix == num_prefix
    assert model.width == config.width
    found = features(model, IMAGES)
    assert found.shape == (3, config.width)
    # Image tokens change with their patch alone, those of the prefix never.
    changed = model.embed(IMAGES.at[:, :4, :4].add(1.0))
    differs = jnp.any(tokens != changed, axis=(0, 2))
    assert np.flatnonzero(differs).tolist() == [num_prefix]
    assert not jnp.allclose(found, features(model, IMAGES.at[:, :4, :4].add(1.0)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_abstract_network_is_the_same_one(name):
    config = FAMILIES[name][0]
    real = backbones.FAMILIES[type(config)](config, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(real)
    assert nnx.graphdef(backbones.abstract(config)) == graphdef
    shapes = jax.tree.map(jnp.shape, nnx.as_pure(state))
    found = nnx.as_pure(nnx.state(backbones.abstract(config)))
    assert jax.tree.map(lambda leaf: leaf.shape, found) == shapes


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_block_gives_what_is_read_and_no_less(name):
    model = build(FAMILIES[name][0])
    tokens = model.embed(IMAGES)
    whole = model.blocks[0](tokens)[:, model.reads]
    np.testing.assert_allclose(
        model.blocks[0](tokens, model.reads), whole, rtol=1e-5, atol=1e-6
    )


def test_mae_normalises_the_mean_of_all_but_cls():
    model = build(FAMILIES["mae"][0])
    tokens = model.embed(IMAGES)
    wanted = model.norm(tokens[:, 1:].mean(1))
    np.testing.assert_array_equal(model.pool(tokens[:, model.reads]), wanted)


def test_moco_positions_are_fixed_sines():
    model = backbones.FAMILIES[MoCoConfig](FAMILIES["moco"][0], rngs=nnx.Rngs(0))
    found = model.pos_embed[...][0]
    assert not found[0].any()
    # Second patch of the first row: row 0, column 1; wavelengths 2 pi and 200 pi.
    wanted = [0, 0, 1, 1, np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    np.testing.assert_allclose(found[2], wanted, atol=1e-6)
    np.testing.assert_allclose(found[3], [*wanted[4:], *wanted[:4]], atol=1e-6)
    grid = positions.sincos(2, 8)
    np.testing.assert_array_equal(MoCoConfig.resize(grid, 3), positions.sincos(3, 8))


def test_sincos_is_the_release_s_token_by_token():
    """`vits.py:53-68` of facebookresearch/moco-v3 at 3 x 3 patches and 8 channels.

    Its `meshgrid` of two axes is indexed 'ij' (PyTorch: "grids[0] varies with the
    first"), so what the file calls the width's angle is that of the token's row.
    """
    found = positions.sincos(3, 8).reshape(9, 8)
    for token in range(9):
        row, column = divmod(token, 3)
        for half, place in enumerate((row, column)):
            for k, omega in enumerate((1.0, 10000.0 ** (-1 / 2))):
                sine, cosine = found[token, [4 * half + k, 4 * half + 2 + k]]
                assert sine == pytest.approx(np.sin(place * omega), abs=1e-6)
                assert cosine == pytest.approx(np.cos(place * omega), abs=1e-6)


def test_registers_have_no_position_and_layer_scale_multiplies():
    model = build(FAMILIES["dinov2_reg"][0])
    tokens = model.embed(IMAGES)
    np.testing.assert_array_equal(tokens[0, 1:3], model.registers[...][0])
    for block in model.blocks:
        block.gamma1[...] = block.gamma2[...] = jnp.zeros(8)
        np.testing.assert_array_equal(block(tokens), tokens)


def test_cubic_is_pytorchs():
    # torch 2.13: interpolate(arange(4.) ** 2 as 1 x 1 x 2 x 2, size 3, "bicubic")
    found = positions.cubic(np.array([[[0.0], [1.0]], [[4.0], [9.0]]]), 3)
    wanted = [
        [-0.4039, -0.0208, 0.3622],
        [1.7396, 3.5, 5.2604],
        [3.8831, 7.0208, 10.1586],
    ]
    np.testing.assert_allclose(found[..., 0], wanted, atol=1e-4)


def test_antialiased_is_pytorchs():
    # torch 2.13: interpolate(arange(4.) ** 2 as 1 x 1 x 2 x 2, size 3 and 1, "bicubic",
    # antialias=True)
    grid = np.array([[[0.0], [1.0]], [[4.0], [9.0]]])
    wanted = [
        [-0.3116, 0.1053, 0.5222],
        [1.8026, 3.5, 5.1974],
        [3.9169, 6.8947, 9.8726],
    ]
    found = positions.antialiased(grid, 3)[..., 0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(positions.antialiased(grid, 1), [[[3.5]]], atol=1e-6)


def test_dinov2_stretches_as_its_release_with_and_without_registers():
    grid = np.random.default_rng(0).normal(size=(3, 3, 2))
    with_registers = DINOv2Config(*SHAPE, registers=2).resize(grid, 2)
    np.testing.assert_array_equal(with_registers, positions.antialiased(grid, 2))
    without = DINOv2Config(*SHAPE).resize(grid, 2)
    # torch 2.13: interpolate(columns 0 1 4 of 3 x 3, scale_factor=2.1 / 3, "bicubic")
    line = np.broadcast_to(np.array([0.0, 1.0, 4.0])[:, None, None], (3, 3, 1))
    shifted = positions.cubic(line, 2, shift=0.1)
    np.testing.assert_array_equal(without, positions.cubic(grid, 2, shift=0.1))
    np.testing.assert_allclose(shifted[:, 0, 0], [0.1091, 3.0393], atol=1e-4)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    layer = DropPath()
    x = jnp.ones((400, 2, 3))
    key = jax.random.key(0)
    np.testing.assert_array_equal(layer(x, key=key, train=True), x)
    layer.rate = 0.25
    np.testing.assert_array_equal(layer(x, key=key), x)
    found = np.asarray(layer(x, key=key, train=True))
    each = found[:, 0, 0]
    np.testing.assert_array_equal(found, np.ones((1, 2, 3)) * each[:, None, None])
    assert set(np.round(each, 4)) == {0.0, np.float32(1.3333)}
    assert abs(each.mean() - 1) < 0.1
