"""Names of the authors' own PyTorch releases where timm's differ from them."""

from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.checkpoints import timm
from vpt_jax.checkpoints.format import Format, vit_size

# Microsoft's Swin ends a stage with the merging, timm's begins the next with it.
SWIN = Format(
    name="the original Swin's",
    families=(SwinConfig,),
    names=timm.SWIN_BLOCKS
    | {
        "stages.{}.merging.norm": "layers.{}.downsample.norm",
        "stages.{}.merging.reduction": "layers.{}.downsample.reduction",
    },
    marks=(*timm.SWIN_MARKS, "layers.0.downsample.norm.weight"),
    size=timm.swin_size,
    ignored=timm.SWIN.ignored,
)

CONVNEXT = Format(
    name="the original ConvNeXt's",
    families=(ConvNeXtConfig,),
    names={
        "stem": "downsample_layers.0.0",
        "stem_norm": "downsample_layers.0.1",
        "stages.{}.downsample.norm": "downsample_layers.{}.0",
        "stages.{}.downsample.conv": "downsample_layers.{}.1",
        "stages.{}.blocks.{}.conv": "stages.{}.{}.dwconv",
        "stages.{}.blocks.{}.norm": "stages.{}.{}.norm",
        "stages.{}.blocks.{}.mlp.fc1": "stages.{}.{}.pwconv1",
        "stages.{}.blocks.{}.mlp.fc2": "stages.{}.{}.pwconv2",
        "stages.{}.blocks.{}.gamma": "stages.{}.{}.gamma",
        "norm": "norm",
    },
    marks=("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"),
    size=timm.convnext_size,
    ignored=r"head\.",
)

_DINOV2 = {
    "name": "the original DINOv2's",
    "families": (DINOv2Config,),
    "size": vit_size,
    "ignored": r"mask_token$|head\.",
}
_DINOV2_NAMES = {**timm.DINOV2.names, "registers": "register_tokens"}

DINOV2 = Format(
    names=_DINOV2_NAMES,
    marks=(*timm.DINOV2.marks, "mask_token", "blocks.0.mlp.fc1.weight"),
    **_DINOV2,
)

DINOV2_GIANT = Format(
    names=_DINOV2_NAMES
    | {
        "blocks.{}.mlp.fc1": "blocks.{}.mlp.w12",
        "blocks.{}.mlp.fc2": "blocks.{}.mlp.w3",
    },
    marks=(*timm.DINOV2.marks, "blocks.0.mlp.w12.weight"),
    **_DINOV2,
)

# The key biases of the release are masked; all others are zero in what it published.
_DINOV3 = {
    "name": "the original DINOv3's",
    "families": (DINOv3Config,),
    "size": vit_size,
    "ignored": r"mask_token$|head\.|local_cls_norm|rope_embed\.|.*bias_mask$",
    "zero": r"blocks\.\d+\.attn\.qkv\.bias",
}
_DINOV3_NAMES = {**timm.DINOV2.names, "registers": "storage_tokens"}

DINOV3 = Format(
    names=_DINOV3_NAMES,
    marks=(*timm.DINOV2.marks, "storage_tokens", "blocks.0.mlp.fc1.weight"),
    **_DINOV3,
)

DINOV3_GATED = Format(
    names=_DINOV3_NAMES
    | {
        "blocks.{}.mlp.gate": "blocks.{}.mlp.w1",
        "blocks.{}.mlp.fc1": "blocks.{}.mlp.w2",
        "blocks.{}.mlp.fc2": "blocks.{}.mlp.w3",
    },
    marks=(*timm.DINOV2.marks, "storage_tokens", "blocks.0.mlp.w1.weight"),
    **_DINOV3,
)

FORMATS = (DINOV3, DINOV3_GATED, DINOV2, DINOV2_GIANT, SWIN, CONVNEXT)
