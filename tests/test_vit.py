"""The ViT, and the original checkpoint format."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from vpt_jax import UserError, backbones, checkpoints
from vpt_jax.backbones.vit import ViT, ViTConfig
from vpt_jax.checkpoints import original_vit
from vpt_jax.types import flatten

SMALL = ViTConfig(patch=4, width=8, depth=2, heads=2, mlp_dim=16, image_size=8)


def test_features_are_those_of_the_cls_token():
    model = ViT(SMALL, rngs=nnx.Rngs(0))
    tokens = model.embed(jnp.ones((3, 8, 8, 3)))
    assert tokens.shape == (3, 5, 8)
    changed = tokens.at[:, 1:].set(7.0)
    features = [model.pool(x[:, model.reads]) for x in (tokens, changed)]
    assert jnp.array_equal(*features)


@pytest.fixture
def weights(monkeypatch):
    """Parameters of SMALL by path, under the backbone name 'small'."""
    monkeypatch.setitem(backbones.CONFIGS, "small", SMALL)
    model = ViT(SMALL, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    return {
        path: rng.standard_normal(x.shape).astype(np.float32)
        for path, x in flatten(nnx.as_pure(nnx.state(model))).items()
    }


@pytest.fixture
def file(weights, tmp_path):
    path = tmp_path / "small.npz"
    original_vit.save(path, weights, SMALL.heads)
    return path


def load(file, image_size=8, dtype="float32", name="small"):
    return checkpoints.load(
        name, str(file), image_size, dtype=jnp.float32, frozen_dtype=dtype
    )


def rewrite(file, change):
    arrays = dict(np.load(file))
    change(arrays)
    np.savez(file, **arrays)


def test_every_parameter_comes_back(file, weights):
    found = flatten(load(file).params)
    assert found.keys() == weights.keys()
    for path, array in weights.items():
        np.testing.assert_array_equal(found[path], array)


def test_heads_are_apart_in_the_file(file):
    with np.load(file) as arrays:
        prefix = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
        assert arrays[f"{prefix}/query/kernel"].shape == (8, 2, 4)
        assert arrays[f"{prefix}/key/bias"].shape == (2, 4)
        assert arrays[f"{prefix}/out/kernel"].shape == (2, 4, 8)


def test_old_heads_are_left(file):
    rewrite(
        file,
        lambda a: a.update(
            {"head/kernel": np.ones((8, 3)), "pre_logits/bias": np.ones(8)}
        ),
    )
    load(file)


def test_bfloat16_halves_the_weights(file, weights):
    params = load(file, dtype="bfloat16").params
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def test_position_embeddings_are_stretched_without_the_cls_entry(file, weights):
    found = flatten(load(file, image_size=16).params)[("pos_embed",)]
    old = weights[("pos_embed",)]
    grid = ndimage.zoom(old[0, 1:].reshape(2, 2, 8), (2, 2, 1), order=1)
    np.testing.assert_array_equal(found[0, 0], old[0, 0])
    np.testing.assert_allclose(found[0, 1:], grid.reshape(16, 8), atol=1e-6)


def test_all_that_does_not_fit_is_listed(file):
    def change(arrays):
        arrays["extra/kernel"] = np.ones(3)
        del arrays["cls"]
        arrays["Transformer/encoder_norm/bias"] = np.ones(9)
        arrays["embedding/bias"] = np.ones(8, np.int32)

    rewrite(file, change)
    with pytest.raises(UserError) as error:
        load(file)
    message = str(error.value)
    assert "missing cls" in message
    assert "unexpected extra/kernel" in message
    assert "Transformer/encoder_norm/bias has shape (9,), wanted (8,)" in message
    assert "embedding/bias holds int32" in message
    assert "\n" not in message


def test_another_architecture_is_refused(file):
    found = r"vit_nano \(width 96, .* holds .* width 8, depth 2, patch 4, .* is small;"
    with pytest.raises(UserError, match=found):
        load(file, image_size=32, name="vit_nano")


def test_a_pickle_is_not_opened(file):
    rewrite(file, lambda a: a.update({"cls": np.array([{"a": 1}], dtype=object)}))
    with pytest.raises(UserError, match="not a readable .npz file of plain arrays"):
        load(file)


def test_a_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match="not a readable .npz"):
        load(file)


def test_a_damaged_member_is_refused(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        offset = archive.getinfo("embedding/kernel.npy").header_offset
    content[offset + 300] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a readable .npz"):
        load(file)


def test_another_ending_is_refused(weights, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="ending '.h5'; known: .npz, .safet"):
        load(path)
