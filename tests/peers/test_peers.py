"""Features of well-kept PyTorch libraries, from files that they save themselves.

    pip install -r requirements-peers.txt && pytest -m peers

Every network is tiny and random; float32, highest precision, 1e-4.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import backbones, checkpoints
from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.types import unflatten

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

SHAPE = (8, 32, 2, 4, 64, 32)  # patch, width, depth, heads, MLP, image
TIMM_VIT = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2,
}
SWIN = {"window_size": 4, "embed_dim": 8, "num_heads": (1, 2, 2, 4)}
DEPTHS = (2, 2, 1, 1)
TIMM = {
    "vit": ("vit_base_patch16_224", TIMM_VIT, ViTConfig(*SHAPE)),
    "deit": ("deit_tiny_patch16_224", TIMM_VIT, ViTConfig(*SHAPE)),
    "dinov2": ("vit_small_patch14_dinov2", TIMM_VIT, DINOv2Config(*SHAPE)),
    "dinov2_reg": (
        "vit_small_patch14_reg4_dinov2",
        TIMM_VIT,
        DINOv2Config(*SHAPE, registers=4),
    ),
    "dinov2_giant": (
        "vit_giant_patch14_dinov2",
        TIMM_VIT | {"mlp_ratio": 4},
        DINOv2Config(8, 32, 2, 4, 64, 32, swiglu=True),
    ),
    "clip": ("vit_base_patch16_clip_quickgelu_224", TIMM_VIT, CLIPConfig(*SHAPE)),
    "clip_gelu": (
        "vit_base_patch16_clip_224",
        TIMM_VIT,
        CLIPConfig(*SHAPE, activation="gelu"),
    ),
    "siglip": (
        "vit_base_patch16_siglip_224",
        # The release and Hugging Face have the tanh GELU in every size, timm's
        # smaller towers the exact one unless told.
        TIMM_VIT | {"act_layer": "gelu_tanh"},
        SigLIPConfig(*SHAPE),
    ),
    "dinov3": (
        "vit_small_patch16_dinov3",
        TIMM_VIT | {"global_pool": "token"},
        DINOv3Config(*SHAPE),
    ),
    "dinov3_plus": (
        "vit_small_plus_patch16_dinov3",
        TIMM_VIT | {"global_pool": "token"},
        DINOv3Config(*SHAPE, swiglu=True),
    ),
    "pe": (
        "vit_pe_core_base_patch16_224",
        TIMM_VIT | {"attn_pool_mlp_ratio": 2},
        PEConfig(*SHAPE),
    ),
    "eva02_small": ("eva02_small_patch14_224", TIMM_VIT, EVA02Config(*SHAPE)),
    "eva02": ("eva02_base_patch14_224", TIMM_VIT, EVA02Config(*SHAPE, normed=True)),
    "swin": (
        "swin_tiny_patch4_window7_224",
        SWIN | {"img_size": 32, "patch_size": 2, "depths": DEPTHS},
        SwinConfig(8, DEPTHS, (1, 2, 2, 4), 4, 2, 32),
    ),
    "convnext": (
        "convnext_tiny",
        {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 24)},
        ConvNeXtConfig((1, 1, 2, 1), (8, 12, 16, 24), 32),
    ),
    "resnet18": (
        "resnet18",
        {"channels": (4, 6, 8, 12)},
        ResNetConfig((2, 2, 2, 2), False, (4, 6, 8, 12), image_size=32),
    ),
    "resnet50": (
        "resnet50",
        {"channels": (4, 6, 8, 12)},
        ResNetConfig((3, 4, 6, 3), True, (4, 6, 8, 12), image_size=32),
    ),
}
ROTARY = ("dinov3", "dinov3_plus", "pe", "eva02_small", "eva02")
HF_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
HF_MLP = HF_VIT | {"intermediate_size": 64}
HF_DINOV3 = HF_MLP | {
    "num_register_tokens": 4,
    "query_bias": False,
    "value_bias": False,
}
# Class, configuration, our configuration, key of the features in its output.
HUGGING_FACE = {
    "vit": ("ViTModel", HF_MLP, ViTConfig(*SHAPE), "cls"),
    "vit_classifier": ("ViTForImageClassification", HF_MLP, ViTConfig(*SHAPE), "cls"),
    "vit_mae": (
        "ViTMAEForPreTraining",
        HF_MLP
        | {"mask_ratio": 0.0, "decoder_hidden_size": 16}
        | {"decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
        | {"decoder_intermediate_size": 32},
        MAEConfig(*SHAPE),
        "mae",
    ),
    "dinov2": (
        "Dinov2Model",
        HF_VIT | {"mlp_ratio": 2, "layer_norm_eps": 1e-6},
        DINOv2Config(*SHAPE),
        "cls",
    ),
    "dinov2_reg": (
        "Dinov2WithRegistersModel",
        HF_VIT | {"mlp_ratio": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": True},
        DINOv2Config(8, 32, 2, 4, 88, 32, registers=4, swiglu=True),
        "cls",
    ),
    "dinov3": ("DINOv3ViTModel", HF_DINOV3, DINOv3Config(*SHAPE), "cls"),
    "dinov3_plus": (
        "DINOv3ViTModel",
        HF_DINOV3 | {"use_gated_mlp": True, "hidden_act": "silu"},
        DINOv3Config(*SHAPE, swiglu=True),
        "cls",
    ),
    "clip": ("CLIPVisionModelWithProjection", HF_MLP, CLIPConfig(*SHAPE), "clip"),
    "siglip": ("SiglipVisionModel", HF_MLP, SigLIPConfig(*SHAPE), "pooler_output"),
    "swin": (
        "SwinModel",
        # Its last stage must not be smaller than a window.
        SWIN | {"image_size": 32, "patch_size": 1, "depths": list(DEPTHS)},
        SwinConfig(8, DEPTHS, (1, 2, 2, 4), 4, 1, 32),
        "pooler_output",
    ),
    "convnext": (
        "ConvNextModel",
        {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 12, 16, 24]}
        | {"layer_norm_eps": 1e-6},
        ConvNeXtConfig((1, 1, 2, 1), (8, 12, 16, 24), 32),
        "pooler_output",
    ),
    "resnet": (
        "ResNetModel",
        {"embedding_size": 64, "depths": [1, 2, 1, 1]}
        | {"hidden_sizes": [16, 24, 32, 48]},
        ResNetConfig((1, 2, 1, 1), True, (4, 6, 8, 12), image_size=32),
        "pooler_output",
    ),
}
IMAGES, LARGE = (
    np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    for side in (32, 56)
)


def randomised(model):
    """Every parameter random, so that norms, scales and biases carry a signal."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        running = {k: v for k, v in model.named_buffers() if "running" in k}
        for name, value in (dict(model.named_parameters()) | running).items():
            noise = torch.randn_like(value) * 0.2
            if "running_var" in name:
                noise = noise.abs() + 0.5
            elif value.ndim == 1 and not name.endswith("bias"):
                noise = noise + 1
            value.copy_(noise)
    return model.eval()


def features(path, config, images=IMAGES):
    config = dataclasses.replace(config, image_size=images.shape[1])
    graphdef, state = nnx.split(backbones.abstract(config))
    shapes = nnx.as_pure(state)
    arrays = checkpoints.load_arrays(path, config, shapes, np.float32)
    arrays = {leaf: jnp.asarray(array) for leaf, array in arrays.items()}
    model = nnx.merge(graphdef, unflatten(shapes, arrays))
    with jax.default_matmul_precision("highest"):
        tokens = model.embed(jnp.asarray(images))
        for block in model.pieces[:-1]:
            tokens = block(tokens)
        return model.pool(model.pieces[-1](tokens, model.reads))


def torch_images(images=IMAGES):
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_timm(name, ending, tmp_path):
    import timm
    import torch
    from safetensors.torch import save_file

    architecture, options, config = TIMM[name]
    model = randomised(timm.create_model(architecture, num_classes=5, **options))
    path = tmp_path / f"model.{ending}"
    if ending == "pth":
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
    else:
        save_file(model.state_dict(), path)
    with torch.no_grad():
        wanted = model.forward_head(
            model.forward_features(torch_images()), pre_logits=True
        )
    np.testing.assert_allclose(features(path, config), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ROTARY)
def test_timm_at_another_size(name, tmp_path):
    import timm
    import torch
    from safetensors.torch import save_file

    architecture, options, config = TIMM[name]
    model = randomised(timm.create_model(architecture, num_classes=0, **options))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    if not model.dynamic_img_size:
        model.set_input_size(LARGE.shape[1:3])
    with torch.no_grad():
        wanted = model(torch_images(LARGE))
    found = features(tmp_path / "model.safetensors", config, LARGE)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


OPENAI = (
    *(("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding")),
    *(("cls_token", "class_embedding"), ("norm_pre", "ln_pre"), ("qkv.", "in_proj_")),
    *(("norm1", "ln_1"), ("norm2", "ln_2"), ("blocks", "transformer.resblocks")),
    *((".proj", ".out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")),
)


@pytest.mark.parametrize("name", ["clip", "pe"])
def test_names_of_openai(name, tmp_path):
    """timm reads back from them what it had itself."""
    import timm
    import torch
    from safetensors.torch import save_file
    from timm.models import eva, vision_transformer

    architecture, options, config = TIMM[name]
    model = randomised(timm.create_model(architecture, num_classes=0, **options))
    own = model.state_dict()
    theirs = {}
    for key, value in own.items():
        for old, new in OPENAI:
            key = key.replace(old, new)
        if key.startswith("norm."):
            key = f"ln_post.{key.removeprefix('norm.')}"
        key = key.replace("attn_pool.norm", "attn_pool.layernorm")
        key = key.replace("attn_pool.out_proj", "attn_pool.attn.out_proj")
        key = key.replace("attn_pool.latent", "attn_pool.probe")
        flat = key.endswith(("positional_embedding", "class_embedding"))
        theirs[f"visual.{key}"] = value.squeeze().clone() if flat else value
    for leaf in ("weight", "bias") if name == "pe" else ():
        parts = [theirs.pop(f"visual.attn_pool.{part}.{leaf}") for part in ("q", "kv")]
        theirs[f"visual.attn_pool.attn.in_proj_{leaf}"] = torch.cat(parts)
    module = {"clip": vision_transformer, "pe": eva}[name]
    back = module.checkpoint_filter_fn(dict(theirs), model)
    assert all(torch.equal(back[key], own[key]) for key in own)
    theirs["visual.proj"], theirs["logit_scale"] = torch.ones(32, 8), torch.ones(1)
    save_file(theirs, tmp_path / "model.safetensors")
    with torch.no_grad():
        wanted = model(torch_images())
    found = features(tmp_path / "model.safetensors", config)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_antialiased_positions_are_pytorchs():
    import torch

    from vpt_jax.backbones import positions

    grid = np.random.default_rng(0).normal(size=(7, 7, 3)).astype(np.float32)
    for new in (4, 11):
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(grid.transpose(2, 0, 1)[None].copy()),
            size=(new, new),
            mode="bicubic",
            antialias=True,
        )
        found = positions.antialiased(grid, new).transpose(2, 0, 1)
        np.testing.assert_allclose(found, wanted[0], atol=1e-5)
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(grid.transpose(2, 0, 1)[None].copy()),
            scale_factor=(new + 0.1) / 7,
            mode="bicubic",
        )
        found = positions.cubic(grid, new, shift=0.1).transpose(2, 0, 1)
        np.testing.assert_allclose(found, wanted[0], atol=1e-5)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name, tmp_path):
    import torch
    import transformers

    kind, options, config, output = HUGGING_FACE[name]
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**options))
    model.config.return_dict = True
    # Position embeddings of an MAE are fixed; saved like any other parameter.
    model = randomised(model)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = output_of(model, output)
    found = features(tmp_path / "model.safetensors", config)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    if "dinov3" in name:
        with torch.no_grad():
            wanted = model(torch_images(LARGE)).last_hidden_state[:, 0]
        found = features(tmp_path / "model.safetensors", config, LARGE)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def output_of(model, output):
    """The features that our pooling gives, of a Hugging Face model."""
    import torch

    images = torch_images()
    if output == "mae":  # the encoder's tokens before its own norm, in their order
        encoder = model.vit
        noise = torch.arange(16.0)[None].expand(3, 16)
        kept = {}
        encoder.layernorm.register_forward_pre_hook(
            lambda module, inputs: kept.update(tokens=inputs[0])
        )
        encoder(images, noise=noise)
        mean = kept["tokens"][:, 1:].mean(1)
        return torch.nn.functional.layer_norm(mean, mean.shape[-1:], eps=1e-6)
    if output == "clip":
        kept = {}
        tower = model.vision_model
        tower.post_layernorm.register_forward_hook(
            lambda module, inputs, result: kept.update(features=result)
        )
        model(images)
        return kept["features"]
    base = getattr(model, model.base_model_prefix, model)
    if type(model).__name__.startswith("DINOv3"):
        base = model  # its prefix is that of the encoder alone
    result = base(images)
    if output == "cls":
        return result.last_hidden_state[:, 0]
    return result[output].flatten(1)
