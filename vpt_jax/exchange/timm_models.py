"""Which network of timm is which backbone of ours, and how its tensors are called."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import NATIVE, EVA02Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.pe import POOL_HEADS, PEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import timm
from vpt_jax.checkpoints.format import Format
from vpt_jax.errors import UserError
from vpt_jax.types import Path


def _vit(
    config: ViTConfig, pool: str = "token", reads=(0, 1), prefix: int = 1, **more
) -> dict:
    more = {"act_layer": config.activation, **more}
    return _tokens("vit", config, pool, reads, prefix, **more)


def _tokens(
    family: str, config: ViTConfig, pool: str, reads: tuple, prefix: int, **more
) -> dict:
    return {
        "family": family,
        "pool": pool,
        "reads": reads,
        "prefix": prefix,
        "epsilon": config.epsilon,
        "arguments": {
            "img_size": config.image_size,
            "patch_size": config.patch,
            "embed_dim": config.width,
            "depth": config.depth,
            "num_heads": config.heads,
            "mlp_ratio": _mlp_ratio(config),
            "global_pool": pool,
            **more,
        },
    }


def _mlp_ratio(config: ViTConfig) -> float:
    """timm rounds the product with the width down."""
    return (config.mlp_dim + 0.5) / config.width


def _mae(config: MAEConfig) -> dict:
    return _vit(config, pool="avg", reads=(1, None))


def _clip(config: CLIPConfig) -> dict:
    return _vit(config, pre_norm=True)


def _dinov2(config: DINOv2Config) -> dict:
    registers = config.registers
    more = {"init_values": 1.0, "reg_tokens": registers}
    found = _vit(config, prefix=1 + registers, no_embed_class=registers > 0, **more)
    if config.swiglu:
        both = (2 * config.mlp_dim + 0.5) / config.width
        found["arguments"] |= {"swiglu": True, "mlp_ratio": both, "act_layer": "silu"}
    return found


def _siglip(config: SigLIPConfig) -> dict:
    return _vit(config, "map", (None,), 0, class_token=False)


def _eva(config: ViTConfig, pool: str, reads: tuple, prefix: int, **more) -> dict:
    return _tokens("eva", config, pool, reads, prefix, use_rot_pos_emb=True, **more)


def _dinov3(config: DINOv3Config) -> dict:
    return _eva(
        config,
        pool="token",
        reads=(0, 1),
        prefix=1 + config.registers,
        init_values=1.0,
        num_reg_tokens=config.registers,
        qkv_bias=False,
        swiglu_mlp=config.swiglu,
        swiglu_align_to=1,  # no rounding, and the gate's weights apart
        use_abs_pos_emb=False,
        rope_type="dinov3",
        rope_temperature=100.0,
        rope_rotate_half=True,
    )


def _pe(config: PEConfig) -> dict:
    return _eva(
        config,
        pool="map",
        reads=(None,),
        prefix=1,
        attn_type="rope",
        attn_pool_num_heads=POOL_HEADS,
        attn_pool_mlp_ratio=_mlp_ratio(config),
        use_pre_transformer_norm=True,
        ref_feat_shape=config.native,
        rope_grid_offset=1.0,
        rope_grid_indexing="xy",
    )


def _eva02(config: EVA02Config) -> dict:
    return _eva(
        config,
        pool="avg",
        reads=(1, None),
        prefix=1,
        qkv_fused=not config.normed,
        scale_mlp=config.normed,
        swiglu_mlp=True,
        ref_feat_shape=NATIVE,
    )


def _swin(config: SwinConfig) -> dict:
    return {
        "family": "swin",
        "arguments": {
            "img_size": config.image_size,
            "patch_size": config.patch,
            "embed_dim": config.embed_dim,
            "depths": config.depths,
            "num_heads": config.heads,
            "window_size": config.window,
        },
    }


def _convnext(config: ConvNeXtConfig) -> dict:
    arguments = {"depths": config.depths, "dims": config.widths}
    return {"family": "convnext", "arguments": arguments}


def _resnet(config: ResNetConfig) -> dict:
    arguments = {
        "block": "Bottleneck" if config.bottleneck else "BasicBlock",
        "layers": config.depths,
        "channels": config.planes,
    }
    return {"family": "resnet", "arguments": arguments}


NETWORKS: dict[type, Callable[..., dict]] = {
    ViTConfig: _vit,
    MoCoConfig: _vit,
    MAEConfig: _mae,
    CLIPConfig: _clip,
    DINOv2Config: _dinov2,
    SigLIPConfig: _siglip,
    DINOv3Config: _dinov3,
    PEConfig: _pe,
    EVA02Config: _eva02,
    SwinConfig: _swin,
    ConvNeXtConfig: _convnext,
    ResNetConfig: _resnet,
}


def described(config) -> dict:
    """The network of timm that is the backbone of `config`, in plain JSON types.

    Raises:
        UserError: There is none.
    """
    if type(config) not in NETWORKS:
        known = ", ".join(sorted(kind.__name__ for kind in NETWORKS))
        raise UserError(
            f"a backbone of {type(config).__name__} cannot be written for PyTorch; "
            f"those of {known} can"
        )
    return NETWORKS[type(config)](config) | {"names": _names(config)}


def state_dict(
    config, leaves: Mapping[Path, np.ndarray | jax.Array]
) -> dict[str, np.ndarray]:
    """The tensors of a backbone by timm's names, in PyTorch's layout.

    Args:
        config: The architecture.
        leaves: Parameters and statistics by path.
    """
    chosen, parts = _format(config), {}
    for path, leaf in leaves.items():
        source = chosen.source(path)
        array = np.asarray(leaf, np.float32)
        if path[-1] == "kernel":
            turn = (1, 0) if array.ndim == 2 else (3, 2, 0, 1)
            array = array.transpose(turn)
        parts.setdefault(source.key, {})[source.part] = array
    return {
        key: np.ascontiguousarray(np.concatenate([found[n] for n in sorted(found)]))
        for key, found in parts.items()
    }


def _names(config) -> dict[str, str]:
    """timm's, by ours; with the key bias of zeros that timm adds but does not store."""
    chosen = _format(config)
    if chosen is not timm.EVA02_SMALL:
        return dict(chosen.names)
    return {**chosen.names, "blocks.{}.attn.key.bias": "blocks.{}.attn.k_bias"}


def _format(config) -> Format:
    """timm's names for this size: some sizes of a family keep their gates apart."""
    if isinstance(config, DINOv3Config) and config.swiglu:
        return timm.DINOV3_GATED
    if isinstance(config, EVA02Config) and config.normed:
        return timm.EVA02
    return next(f for f in timm.FORMATS if type(config) in f.families)
