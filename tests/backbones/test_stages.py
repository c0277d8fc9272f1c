"""Swin, ConvNeXt and ResNet on tiny shapes: stages, windows, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import UserError, backbones
from vpt_jax.backbones import swin
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.swin import SwinConfig

SWIN = SwinConfig(8, (2, 1), (2, 2), window=2, patch=2, image_size=8)
CONVNEXT = ConvNeXtConfig((1, 2), (4, 8), image_size=32)
RESNET = ResNetConfig((1, 2), planes=(2, 4), stem=4, image_size=32)
BASIC = ResNetConfig((1, 1), False, planes=(4, 8), stem=4, image_size=32)
RNG = np.random.default_rng(0)


def build(config):
    model = backbones.FAMILIES[type(config)](config, rngs=nnx.Rngs(0))
    state = jax.tree.map(
        lambda x: x + jnp.asarray(RNG.uniform(0, 0.2, x.shape), x.dtype),
        nnx.state(model),
    )
    nnx.update(model, state)
    return model


@pytest.mark.parametrize(
    ("config", "sizes", "width"),
    [
        (SWIN, [(16, 8), (16, 8), (16, 8), (4, 16), (4, 16)], 16),
        (CONVNEXT, [(8, 8, 4), (8, 8, 4), (4, 4, 8), (4, 4, 8), (4, 4, 8)], 8),
        (RESNET, [(8, 8, 4), (8, 8, 8), (4, 4, 16), (4, 4, 16)], 16),
        (BASIC, [(8, 8, 4), (8, 8, 4), (4, 4, 8)], 8),
    ],
)
def test_interface(config, sizes, width):
    model = backbones.FAMILIES[type(config)](config, rngs=nnx.Rngs(0))
    size = config.image_size
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    x = jax.eval_shape(model.embed, images)
    assert x.shape == (3, *sizes[0])
    for block, wanted in zip(model.pieces, sizes[1:], strict=True):
        first = jax.eval_shape(lambda x, block=block: block(x, slice(0, 1)), x)
        x = jax.eval_shape(lambda x, block=block: block(x, model.reads), x)
        assert x.shape == (3, *wanted)
        assert first.shape == (3, 1, *wanted[1:])
    assert jax.eval_shape(model.pool, x).shape == (3, width)
    assert model.width == width


def test_windows_come_back():
    x = jnp.arange(2 * 36 * 3.0).reshape(2, 6, 6, 3)
    windows = swin.to_windows(x, 2)
    assert windows.shape == (2, 9, 4, 3)
    np.testing.assert_array_equal(windows[0, 1], x[0, :2, 2:4].reshape(4, 3))
    np.testing.assert_array_equal(swin.from_windows(windows, 6), x)


def test_tokens_of_the_far_edges_do_not_meet():
    """Neighbours of the image see each other across the shifted border only if they
    lie side by side in the image."""
    mask = swin.shift_mask(4, 2, 1)
    position = np.roll(np.arange(16).reshape(4, 4), (-1, -1), (0, 1))
    windows = np.asarray(swin.to_windows(jnp.asarray(position)[None, ..., None], 2))
    for window, allowed in zip(windows[0, ..., 0], mask == 0, strict=True):
        row, column = np.divmod(window, 4)
        near = (abs(row[:, None] - row) <= 1) & (abs(column[:, None] - column) <= 1)
        np.testing.assert_array_equal(allowed, near)


@pytest.mark.parametrize("index", [0, 1])
def test_extra_tokens_stay_with_their_own_image(index):
    model = build(SWIN)
    block = model.blocks[index]
    image = jnp.asarray(RNG.normal(size=(2, 16, 8)), jnp.float32)
    extra = jnp.asarray(RNG.normal(size=(2, 3, 8)), jnp.float32)
    found = block(jnp.concatenate([extra, image], 1))
    assert found.shape == (2, 19, 8)
    for i in (0, 1):
        alone = block(jnp.concatenate([extra[i], image[i]])[None])
        np.testing.assert_allclose(found[i], alone[0], atol=1e-5)
    # A token of the image learns of the extra ones, and of its own image alone.
    other = block(jnp.concatenate([extra.at[1].multiply(-1), image], 1))
    changed = jnp.any(jnp.abs(found - other) > 1e-6, axis=-1)
    assert not changed[0].any() and changed[1].all()


def test_extra_tokens_leave_with_the_mean_over_windows():
    model = build(SWIN)
    block = model.blocks[0]
    image = jnp.asarray(RNG.normal(size=(1, 16, 8)), jnp.float32)
    extra = jnp.asarray(RNG.normal(size=(1, 2, 8)), jnp.float32)
    found = block(jnp.concatenate([extra, image], 1))[0, :2]
    windows = swin.to_windows(image.reshape(1, 4, 4, 8), 2)[0]
    each = []
    for window in windows:
        x = block.norm1(jnp.concatenate([extra[0], window]))[None, None]
        each.append(block.attn(x, None)[0, 0, :2])
    x = extra[0] + sum(each) / 4
    wanted = x + block.mlp(block.norm2(x))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_merging_joins_two_by_two_tokens_and_copies_extra_ones():
    merging = build(SWIN).stages[0].merging
    image = jnp.arange(16 * 8.0).reshape(1, 4, 4, 8)
    extra = jnp.ones((1, 2, 8)) * jnp.arange(8.0)[None, None]
    found = merging(jnp.concatenate([extra, image.reshape(1, 16, 8)], 1))
    assert found.shape == (1, 6, 16)
    second = jnp.concatenate(
        [image[0, 0, 2], image[0, 1, 2], image[0, 0, 3], image[0, 1, 3]]
    )
    copies = jnp.concatenate([extra[0, 0]] * 4)
    for place, joined in ((0, copies), (3, second)):
        wanted = merging.reduction(merging.norm(joined))
        np.testing.assert_allclose(found[0, place], wanted, atol=1e-4)


def test_position_bias_is_zero_for_extra_tokens():
    attn = build(SWIN).blocks[0].attn
    bias = attn._bias(6, None)[0, 0, 1]
    assert not bias[:2].any() and not bias[:, :2].any()
    table = attn.position_bias[..., 1]
    # Tokens 0 (row 0, column 0) and 3 (row 1, column 1) of a 2 x 2 window.
    assert bias[2, 5] == table[0] and bias[5, 2] == table[8]
    assert bias[2, 3] == table[3] and bias[2, 4] == table[1]


@pytest.mark.parametrize("size", [448, 384])
def test_image_sizes_of_swin(size):
    name = "swin_b" if size == 448 else "swin_b_384"
    assert backbones.get_config(name, size).image_size == size
    other = "swin_b_384" if size == 448 else "swin_b"
    with pytest.raises(UserError, match=f"image_size {size} does not divide into .*"):
        backbones.get_config(other, size)


def test_small_images_of_convolutional_networks():
    assert backbones.get_config("resnet50", 100).image_size == 100
    with pytest.raises(UserError, match="31 is less than the 32 px .* of convnext_t"):
        backbones.get_config("convnext_t", 31)


def test_batch_statistics_only_where_asked_for():
    model = build(RESNET)
    x = jnp.asarray(RNG.normal(size=(3, 32, 32, 3)), jnp.float32)
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))
    tokens = model.embed(x, train=True)
    last = model.blocks[-1]
    for norm in last.norms:
        norm.use_batch = True
    for block in model.blocks:
        tokens = block(tokens, train=True)
    after = nnx.state(model, nnx.BatchStat)
    changed = {
        path[:4]
        for path, new in nnx.to_flat_state(after)
        if not jnp.array_equal(new[...], dict(nnx.to_flat_state(before))[path][...])
    }
    assert changed == {("stages", 1, "blocks", 1)}
