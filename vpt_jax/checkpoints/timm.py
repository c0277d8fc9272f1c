"""Names of timm, which are those of the releases of DeiT, MAE, MoCo v3 and torchvision.

The PyTorch files of MAE, DeiT and MoCo v3 were written with timm's ViT; the older of
timm's names for Swin and ConvNeXt are in `releases.py`.
"""

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
from vpt_jax.checkpoints.format import Format, staged_depths, vit_size

PATCHES = {"pos_embed": "pos_embed", "patch_embed": "patch_embed.proj"}
BLOCKS = {
    "blocks.{}.norm1": "blocks.{}.norm1",
    "blocks.{}.attn.query": "blocks.{}.attn.qkv[0/3]",
    "blocks.{}.attn.key": "blocks.{}.attn.qkv[1/3]",
    "blocks.{}.attn.value": "blocks.{}.attn.qkv[2/3]",
    "blocks.{}.attn.out": "blocks.{}.attn.proj",
    "blocks.{}.norm2": "blocks.{}.norm2",
    "blocks.{}.mlp.fc1": "blocks.{}.mlp.fc1",
    "blocks.{}.mlp.fc2": "blocks.{}.mlp.fc2",
}
SCALES = {"blocks.{}.gamma1": "blocks.{}.ls1.gamma"} | {
    "blocks.{}.gamma2": "blocks.{}.ls2.gamma"
}
MARKS = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
# MoCo v3: the encoder before or after linear evaluation in its training wrapper.
PREFIXES = ("module.base_encoder.", "module.", "")
OLD_TASK = r"head\.|head_dist\.|fc_norm\.|pre_logits\.|mask_token$|decoder_"

VIT = Format(
    name="timm's ViT",
    families=(ViTConfig, MoCoConfig),
    names=PATCHES | BLOCKS | {"cls": "cls_token", "norm": "norm"},
    marks=MARKS,
    size=vit_size,
    prefixes=PREFIXES,
    ignored=OLD_TASK,
)

MAE = Format(
    name="timm's ViT",
    families=(MAEConfig,),
    names=PATCHES | BLOCKS | {"cls": "cls_token", "norm": "fc_norm?"},
    marks=MARKS,
    size=vit_size,
    ignored=OLD_TASK + r"|norm\.",
    prefixes=PREFIXES,
)

DINOV2 = Format(
    name="timm's DINOv2",
    families=(DINOv2Config,),
    names=PATCHES
    | BLOCKS
    | SCALES
    | {"cls": "cls_token", "registers": "reg_token", "norm": "norm"},
    marks=(*MARKS, "blocks.0.ls1.gamma"),
    size=vit_size,
    ignored=OLD_TASK,
)

CLIP = Format(
    name="timm's CLIP",
    families=(CLIPConfig,),
    names=PATCHES
    | BLOCKS
    | {"cls": "cls_token", "pre_norm": "norm_pre", "norm": "norm"},
    marks=(*MARKS, "norm_pre.weight"),
    size=vit_size,
    ignored=OLD_TASK,
)

POOL = {
    "head.probe": "attn_pool.latent",
    "head.query": "attn_pool.q",
    "head.key": "attn_pool.kv[0/2]",
    "head.value": "attn_pool.kv[1/2]",
    "head.out": "attn_pool.proj",
    "head.norm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
}

SIGLIP = Format(
    name="timm's SigLIP",
    families=(SigLIPConfig,),
    names=PATCHES | BLOCKS | POOL | {"norm": "norm"},
    marks=(*MARKS, "attn_pool.latent"),
    size=vit_size,
    ignored=OLD_TASK,
)

PE = Format(
    name="timm's Perception Encoder",
    families=(PEConfig,),
    names={**CLIP.names, **POOL},
    marks=(*CLIP.marks, "attn_pool.latent"),
    size=vit_size,
    ignored=OLD_TASK,
)

GATED = {
    "blocks.{}.mlp.gate": "blocks.{}.mlp.fc1_g",
    "blocks.{}.mlp.fc1": "blocks.{}.mlp.fc1_x",
    "blocks.{}.mlp.norm": "blocks.{}.mlp.norm",
}

_DINOV3 = {
    "name": "timm's DINOv3",
    "families": (DINOv3Config,),
    "size": vit_size,
    "ignored": OLD_TASK + r"|rope\.",
    "zero": r"blocks\.\d+\.attn\.[qv]_bias",  # of the files named `_qkvb`
}
_DINOV3_NAMES = {
    **DINOV2.names,
    "blocks.{}.gamma1": "blocks.{}.gamma_1",
    "blocks.{}.gamma2": "blocks.{}.gamma_2",
}
_DINOV3_MARKS = (*MARKS, "reg_token", "blocks.0.gamma_1")

DINOV3 = Format(
    names=_DINOV3_NAMES, marks=(*_DINOV3_MARKS, "blocks.0.mlp.fc1.weight"), **_DINOV3
)

DINOV3_GATED = Format(
    names=_DINOV3_NAMES | GATED,
    marks=(*_DINOV3_MARKS, "blocks.0.mlp.fc1_g.weight"),
    **_DINOV3,
)

_EVA02 = {
    "name": "timm's EVA-02",
    "families": (EVA02Config,),
    "size": vit_size,
    "ignored": OLD_TASK + r"|rope\.",
}
_EVA02_NAMES = PATCHES | BLOCKS | {"cls": "cls_token", "norm": "fc_norm"}

EVA02_SMALL = Format(
    names=_EVA02_NAMES
    | {
        "blocks.{}.attn.query.bias": "blocks.{}.attn.q_bias",
        "blocks.{}.attn.value.bias": "blocks.{}.attn.v_bias",
        "blocks.{}.mlp.gate": "blocks.{}.mlp.fc1[0/2]",
        "blocks.{}.mlp.fc1": "blocks.{}.mlp.fc1[1/2]",
    },
    marks=(*MARKS, "blocks.0.attn.q_bias", "blocks.0.mlp.fc1.weight"),
    **_EVA02,
)

EVA02 = Format(
    names=_EVA02_NAMES
    | GATED
    | {
        "blocks.{}.attn.query": "blocks.{}.attn.q_proj",
        "blocks.{}.attn.key": "blocks.{}.attn.k_proj",
        "blocks.{}.attn.value": "blocks.{}.attn.v_proj",
    },
    marks=("blocks.0.attn.q_proj.weight", "blocks.0.mlp.norm.weight"),
    **_EVA02,
)


def swin_size(shape) -> dict:
    """Attributes of a Swin by the arrays of a file."""
    table = shape("stages", 0, "blocks", 0, "attn", "position_bias")
    kernel = shape("patch_embed", "kernel")
    return {
        "embed_dim": kernel[-1],
        "depths": staged_depths(shape, "norm1", "bias"),
        "window": (round(table[0] ** 0.5) + 1) // 2,
        "patch": kernel[0],
    }


SWIN_BLOCKS = {
    "patch_embed": "patch_embed.proj",
    "patch_norm": "patch_embed.norm",
    "norm": "norm",
    "stages.{}.blocks.{}.attn.position_bias": (
        "layers.{}.blocks.{}.attn.relative_position_bias_table"
    ),
} | {f"stages.{{}}.{ours}": f"layers.{{}}.{theirs}" for ours, theirs in BLOCKS.items()}
SWIN_MARKS = (
    "patch_embed.norm.weight",
    "layers.0.blocks.0.attn.relative_position_bias_table",
)

SWIN = Format(
    name="timm's Swin",
    families=(SwinConfig,),
    names=SWIN_BLOCKS
    | {
        "stages.{}.merging.norm": "layers.{0.next}.downsample.norm",
        "stages.{}.merging.reduction": "layers.{0.next}.downsample.reduction",
    },
    marks=(*SWIN_MARKS, "layers.3.downsample.norm.weight"),
    size=swin_size,
    ignored=r"head\.|.*relative_position_index$|.*attn_mask$",
)


def convnext_size(shape) -> dict:
    """Attributes of a ConvNeXt by the arrays of a file."""
    depths = staged_depths(shape, "gamma")
    widths = [shape("stages", s, "blocks", 0, "gamma")[0] for s in range(len(depths))]
    return {"depths": depths, "widths": tuple(widths)}


CONVNEXT = Format(
    name="timm's ConvNeXt",
    families=(ConvNeXtConfig,),
    names={
        "stem": "stem.0",
        "stem_norm": "stem.1",
        "stages.{}.downsample.norm": "stages.{}.downsample.0",
        "stages.{}.downsample.conv": "stages.{}.downsample.1",
        "stages.{}.blocks.{}.conv": "stages.{}.blocks.{}.conv_dw",
        "stages.{}.blocks.{}.norm": "stages.{}.blocks.{}.norm",
        "stages.{}.blocks.{}.mlp.fc1": "stages.{}.blocks.{}.mlp.fc1",
        "stages.{}.blocks.{}.mlp.fc2": "stages.{}.blocks.{}.mlp.fc2",
        "stages.{}.blocks.{}.gamma": "stages.{}.blocks.{}.gamma",
        "norm": "head.norm",
    },
    marks=("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"),
    size=convnext_size,
    ignored=r"head\.",
)


def resnet_size(shape) -> dict:
    """Attributes of a ResNet by the arrays of a file."""
    depths = staged_depths(shape, "norms", 0, "scale")
    bottleneck = shape("stages", 0, "blocks", 0, "norms", 2, "scale") is not None
    planes = [
        shape("stages", s, "blocks", 0, "norms", 0, "scale")[0]
        for s in range(len(depths))
    ]
    return {"depths": depths, "bottleneck": bottleneck, "planes": tuple(planes)}


RESNET = Format(
    name="torchvision's ResNet",
    families=(ResNetConfig,),
    names={
        "stem": "conv1",
        "stem_norm": "bn1",
        "stages.{}.blocks.{}.convs.{}": "layer{0.next}.{1}.conv{2.next}",
        "stages.{}.blocks.{}.norms.{}": "layer{0.next}.{1}.bn{2.next}",
        "stages.{}.blocks.{}.shortcut": "layer{0.next}.{1}.downsample.0",
        "stages.{}.blocks.{}.shortcut_norm": "layer{0.next}.{1}.downsample.1",
    },
    marks=("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"),
    size=resnet_size,
    prefixes=("", "module."),
    ignored=r"fc\.|.*num_batches_tracked$",
)

FORMATS = (
    *(DINOV2, DINOV3, DINOV3_GATED, PE, EVA02_SMALL, EVA02, CLIP, SIGLIP),
    *(VIT, MAE, SWIN, CONVNEXT, RESNET),
)
