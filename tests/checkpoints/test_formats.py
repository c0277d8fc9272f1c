"""Each table against small files written here, and what else may be in a file."""

import dataclasses
import importlib.machinery
import importlib.metadata
import json
import struct
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from vpt_jax import UserError, backbones, checkpoints
from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import FORMATS, native, original_vit, timm
from vpt_jax.checkpoints.format import split_heads
from vpt_jax.types import flatten

SHAPE = (4, 8, 2, 2, 16, 8)
CONFIGS = {
    ViTConfig: ViTConfig(*SHAPE),
    MAEConfig: MAEConfig(*SHAPE),
    MoCoConfig: MoCoConfig(*SHAPE),
    DINOv2Config: DINOv2Config(*SHAPE, registers=2),
    CLIPConfig: CLIPConfig(*SHAPE),
    SigLIPConfig: SigLIPConfig(*SHAPE),
    DINOv3Config: DINOv3Config(*SHAPE),
    PEConfig: PEConfig(4, 16, 2, 2, 32, 8, native=2),
    EVA02Config: EVA02Config(*SHAPE),
    SwinConfig: SwinConfig(8, (1, 1, 1, 1), (1, 2, 2, 4), 2, 1, 16),
    ConvNeXtConfig: ConvNeXtConfig((1, 2), (4, 8), 32),
    ResNetConfig: ResNetConfig((1, 2), True, (2, 4), 4, 32),
}
CASES = [
    pytest.param(chosen, CONFIGS[family], id=f"{chosen.name}-{family.__name__}")
    for chosen in FORMATS
    for family in chosen.families
    if chosen not in native.FORMATS
]


def shapes_of(config):
    return nnx.as_pure(nnx.state(backbones.abstract(config)))


def random_leaves(config):
    rng = np.random.default_rng(0)
    return {
        path: rng.standard_normal(leaf.shape).astype(np.float32)
        for path, leaf in flatten(shapes_of(config)).items()
    }


def file_of(chosen, leaves, config) -> dict[str, np.ndarray]:
    """The arrays of a file, written by the rules of `Format` the other way round."""
    parts = {}
    for path, array in leaves.items():
        source = chosen.source(path)
        if chosen.layout == "torch" and path[-1] == "kernel":
            array = array.transpose(
                *range(array.ndim)[::-1][:2], *range(array.ndim - 2)
            )
        elif chosen.layout == "flax":
            array = array.reshape(split_heads(path, array.shape, config.heads))
        parts.setdefault(source.key, {})[source.part] = array
    return {
        key: np.ascontiguousarray(np.concatenate([p[i] for i in sorted(p)]))
        if len(p) > 1
        else np.ascontiguousarray(p[0])
        for key, p in parts.items()
    }


def load(path, config, dtype=np.float32):
    return checkpoints.load_arrays(path, config, shapes_of(config), dtype)


def gated(chosen, config):
    """The tables of a family's sizes with SwiGLU, or a norm inside, expect it."""
    swiglu = ("mlp.w12", "mlp.weights_in", "mlp.w1.", "mlp.fc1_g")
    if any(part in mark for part in swiglu for mark in chosen.marks):
        return dataclasses.replace(config, swiglu=True)
    if "blocks.0.mlp.norm.weight" in chosen.marks:
        return dataclasses.replace(config, normed=True)
    return config


@pytest.mark.parametrize(("chosen", "config"), CASES)
def test_every_array_arrives(chosen, config, tmp_path):
    config = gated(chosen, config)
    leaves = random_leaves(config)
    arrays = file_of(chosen, leaves, config)
    for mark in chosen.marks:  # the mask token of DINOv2
        arrays.setdefault(mark, np.zeros(1, np.float32))
    prefix = chosen.prefixes[0]
    path = tmp_path / "model.safetensors"
    save_file({prefix + key: array for key, array in arrays.items()}, path)
    found = load(path, config)
    assert found.keys() == leaves.keys()
    for leaf, array in leaves.items():
        np.testing.assert_array_equal(found[leaf], array, str(leaf))


@pytest.mark.parametrize("family", CONFIGS)
def test_own_files_come_back(family, tmp_path):
    config = CONFIGS[family]
    leaves = random_leaves(config)
    native.save(tmp_path / "model.safetensors", leaves)
    found = load(tmp_path / "model.safetensors", config)
    assert found.keys() == leaves.keys()
    assert all(np.array_equal(found[leaf], leaves[leaf]) for leaf in leaves)


def test_biases_without_a_place_must_be_zero(tmp_path):
    """Files of DINOv3 may store query and value biases, in which nothing is learned."""
    config = CONFIGS[DINOv3Config]
    leaves = random_leaves(config)
    arrays = file_of(timm.DINOV3, leaves, config)
    arrays["blocks.1.attn.q_bias"] = np.zeros(8, np.float32)
    found = load(saved(arrays, tmp_path), config)
    assert all(np.array_equal(found[leaf], leaves[leaf]) for leaf in leaves)
    arrays["blocks.1.attn.q_bias"][3] = 1e-3
    with pytest.raises(UserError, match="not zero blocks.1.attn.q_bias, for which"):
        load(saved(arrays, tmp_path), config)


def test_own_file_of_another_backbone(tmp_path):
    path = tmp_path / "model.safetensors"
    native.save(path, random_leaves(CONFIGS[ViTConfig]))
    with pytest.raises(UserError, match="missing pre_norm.bias.*; unexpected"):
        load(path, CONFIGS[CLIPConfig])


@pytest.fixture
def vit():
    """Arrays of a ViT under timm's names, and its parameters."""
    config = CONFIGS[ViTConfig]
    leaves = random_leaves(config)
    return file_of(timm.VIT, leaves, config), leaves, config


def saved(arrays, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(arrays, path)
    return path


def test_two_formats_of_the_same_weights(vit, tmp_path):
    arrays, leaves, config = vit
    original_vit.save(tmp_path / "model.npz", leaves, config.heads)
    one = load(tmp_path / "model.npz", config)
    two = load(saved(arrays, tmp_path), config)
    assert all(np.array_equal(one[leaf], two[leaf]) for leaf in leaves)


def test_the_container_does_not_matter(vit, tmp_path):
    arrays, leaves, config = vit
    np.savez(tmp_path / "model.npz", **arrays)
    found = load(tmp_path / "model.npz", config)
    assert all(np.array_equal(found[leaf], leaves[leaf]) for leaf in leaves)


def test_mae_has_a_fresh_norm_unless_the_file_was_tuned(vit, tmp_path):
    arrays, leaves, _ = vit
    arrays["decoder_blocks.0.norm1.weight"] = arrays["mask_token"] = np.ones(8)
    found = load(saved(arrays, tmp_path), CONFIGS[MAEConfig])
    np.testing.assert_array_equal(found["norm", "scale"], np.ones(8))
    np.testing.assert_array_equal(found["norm", "bias"], np.zeros(8))
    arrays |= {"fc_norm.weight": np.full(8, 2.0), "fc_norm.bias": np.full(8, 3.0)}
    found = load(saved(arrays, tmp_path), CONFIGS[MAEConfig])
    np.testing.assert_array_equal(found["norm", "scale"], np.full(8, 2.0))
    np.testing.assert_array_equal(found["norm", "bias"], np.full(8, 3.0))


@pytest.mark.parametrize("prefix", ["module.base_encoder.", "module."])
def test_moco_in_its_training_wrapper(vit, prefix, tmp_path):
    arrays, leaves, _ = vit
    arrays = {prefix + key: array for key, array in arrays.items()}
    arrays[prefix + "head.weight"] = np.ones((3, 8))
    if prefix == "module.base_encoder.":
        arrays["module.momentum_encoder.cls_token"] = np.ones(3)
    found = load(saved(arrays, tmp_path), CONFIGS[MoCoConfig])
    assert all(np.array_equal(found[leaf], leaves[leaf]) for leaf in leaves)


def test_positions_without_cls(vit, tmp_path):
    arrays, leaves, config = vit
    arrays["pos_embed"] = arrays["pos_embed"][:, 1:].copy()
    found = load(saved(arrays, tmp_path), config)["pos_embed",]
    assert not found[:, 0].any()
    np.testing.assert_array_equal(found[:, 1:], leaves["pos_embed",][:, 1:])


@pytest.mark.parametrize("family", [ViTConfig, MAEConfig, MoCoConfig])
def test_positions_are_stretched_as_the_family_does(vit, family, tmp_path):
    arrays, leaves, _ = vit
    config = dataclasses.replace(CONFIGS[family], image_size=12)
    found = load(saved(arrays, tmp_path), config)["pos_embed",]
    old = leaves["pos_embed",]
    np.testing.assert_array_equal(found[:, 0], old[:, 0])
    wanted = family.resize(old[0, 1:].reshape(2, 2, 8), 3)
    np.testing.assert_allclose(found[0, 1:], wanted.reshape(9, 8), atol=1e-6)


def test_siglip_positions_have_no_cls(tmp_path):
    config = CONFIGS[SigLIPConfig]
    leaves = random_leaves(config)
    path = saved(file_of(timm.SIGLIP, leaves, config), tmp_path)
    found = load(path, dataclasses.replace(config, image_size=12))["pos_embed",]
    wanted = config.resize(leaves["pos_embed",].reshape(2, 2, 8), 3)
    np.testing.assert_allclose(found[0], wanted.reshape(9, 8), atol=1e-6)


def test_statistics_stay_in_float32(tmp_path):
    config = CONFIGS[ResNetConfig]
    arrays = file_of(timm.RESNET, random_leaves(config), config)
    arrays["bn1.num_batches_tracked"] = np.array(3)
    found = load(saved(arrays, tmp_path), config, jnp.bfloat16)
    kinds = {path[-1]: array.dtype for path, array in found.items()}
    assert kinds["mean"] == kinds["var"] == np.float32
    assert kinds["kernel"] == kinds["scale"] == jnp.bfloat16


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_files(vit, kind, tmp_path):
    arrays, leaves, config = vit
    kind = np.dtype(getattr(jnp, kind))
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {key: array.astype(kind) for key, array in arrays.items()})
    found = load(path, config)
    assert all(
        np.array_equal(found[leaf], leaves[leaf].astype(kind).astype(np.float32))
        for leaf in leaves
    )


def write_safetensors(path, arrays):
    header, data = {"__metadata__": {"format": "np"}}, b""
    for key, array in arrays.items():
        name = {"float16": "F16", "bfloat16": "BF16"}[array.dtype.name]
        offsets = [len(data), len(data) + array.nbytes]
        entry = {"dtype": name, "shape": array.shape, "data_offsets": offsets}
        header[key], data = entry, data + array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-50],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: struct.pack("<Q", 2**60) + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: content.replace(b'"F32"', b'"F99"'),
        lambda content: content.replace(b"[8,16]", b"[8,17]"),
    ],
)
def test_damaged_safetensors(vit, damage, tmp_path):
    arrays, _, config = vit
    path = saved(arrays, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="not a readable .safetensors file") as error:
        load(path, config)
    assert "\n" not in str(error.value)


def test_all_that_does_not_fit_is_listed(vit, tmp_path):
    arrays, _, config = vit
    del arrays["cls_token"]
    arrays["blocks.0.attn.rel_pos"] = np.ones(3)
    arrays["norm.bias"] = np.ones(9)
    arrays["blocks.1.mlp.fc1.bias"] = np.ones(16, np.int32)
    with pytest.raises(UserError) as error:
        load(saved(arrays, tmp_path), config)
    message = str(error.value)
    assert "missing cls_token;" in message
    assert "unexpected blocks.0.attn.rel_pos;" in message
    assert "norm.bias has shape (9,), wanted (8,)" in message
    assert "blocks.1.mlp.fc1.bias holds int32" in message


@pytest.mark.parametrize("rows", [25, 8])
def test_rows_that_cannot_be_parted_do_not_fit(vit, rows, tmp_path):
    """Query, key and value are thirds; no row may be left over."""
    arrays, _, config = vit
    arrays["blocks.0.attn.qkv.weight"] = np.ones((rows, 8), np.float32)
    wanted = rf"blocks.0.attn.qkv.weight has shape \({rows}, 8\), wanted \(8, 8\)"
    with pytest.raises(UserError, match=wanted):
        load(saved(arrays, tmp_path), config)


def test_another_family_is_named(vit, tmp_path, monkeypatch):
    arrays, _, config = vit
    monkeypatch.setitem(backbones.CONFIGS, "small", config)
    monkeypatch.setitem(backbones.CONFIGS, "small_clip", CONFIGS[CLIPConfig])
    wanted = (
        "does not fit small_clip: it holds timm's ViT weights of width 8, depth 2, "
        "patch 4, which is small;"
    )
    with pytest.raises(UserError, match=wanted):
        load(saved(arrays, tmp_path), CONFIGS[CLIPConfig])


@pytest.mark.parametrize("family", [SwinConfig, ConvNeXtConfig, ResNetConfig])
def test_another_size_is_named(family, tmp_path):
    chosen = {SwinConfig: timm.SWIN, ConvNeXtConfig: timm.CONVNEXT}.get(
        family, timm.RESNET
    )
    config = CONFIGS[family]
    path = saved(file_of(chosen, random_leaves(config), config), tmp_path)
    other = {
        SwinConfig: ("swin_t", r"embed_dim 96, .* holds .* embed_dim 8, depths \(1, 1"),
        ConvNeXtConfig: ("convnext_b", r"\(3, 3, 27, 3\).* holds .* depths \(1, 2\)"),
        ResNetConfig: ("resnet18", "bottleneck False.* holds .* bottleneck True"),
    }[family]
    with pytest.raises(UserError, match=f"does not fit {other[0]} .*{other[1]}"):
        checkpoints.load(other[0], str(path), 224, dtype=np.float32, frozen_dtype="f4")


def test_something_else_is_no_known_format(tmp_path):
    path = saved({"weight": np.ones(3), "bias": np.ones(3)}, tmp_path)
    with pytest.raises(
        UserError, match="holds 2 arrays, bias, weight; known: .*timm's"
    ):
        load(path, CONFIGS[ViTConfig])


class Tensor:
    """As much of a torch tensor as is used."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return f"torch.{self.array.dtype}"

    def numpy(self):
        return self.array


@pytest.mark.parametrize("ending", [".pth", ".pth.tar", ".pt", ".bin"])
@pytest.mark.parametrize("inside", ["model", "state_dict", None])
def test_pytorch_files_are_read_as_weights_only(
    vit, ending, inside, tmp_path, monkeypatch
):
    arrays, leaves, config = vit
    tensors = {key: Tensor(array) for key, array in arrays.items()}
    content = {inside: tensors, "epoch": 3} if inside else tensors
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"x")
    asked = {}

    def fake(opened, **options):
        asked.update(options, path=opened)
        return content

    torch = types.ModuleType("torch")
    torch.load, torch.Tensor = fake, Tensor
    torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.6.0")
    found = load(path, config)
    assert all(np.array_equal(found[leaf], leaves[leaf]) for leaf in leaves)
    assert asked == {
        "path": path,
        "map_location": "cpu",
        "weights_only": True,
        "mmap": False,
    }


def test_pytorch_files_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="torch is not installed: pip install 'vpt_jax"):
        load(path, CONFIGS[ViTConfig])


def test_a_random_backbone_needs_no_file(monkeypatch):
    monkeypatch.setitem(backbones.CONFIGS, "small", CONFIGS[ResNetConfig])
    found = checkpoints.load(
        "small", "random", 32, dtype=np.float32, frozen_dtype="float32"
    )
    assert found.sha256 == "random"
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found.params))
