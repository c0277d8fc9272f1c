"""Names of Hugging Face transformers; the prefix depends on the class that saved."""

from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import timm
from vpt_jax.checkpoints.format import Format, vit_size

_OLD_TASK = r"classifier\.|pooler\.|decoder\.|.*mask_token$"
_LAYER = "encoder.layer.{}"
_BLOCKS = {
    "blocks.{}.norm1": f"{_LAYER}.layernorm_before",
    "blocks.{}.attn.query": f"{_LAYER}.attention.attention.query",
    "blocks.{}.attn.key": f"{_LAYER}.attention.attention.key",
    "blocks.{}.attn.value": f"{_LAYER}.attention.attention.value",
    "blocks.{}.attn.out": f"{_LAYER}.attention.output.dense",
    "blocks.{}.norm2": f"{_LAYER}.layernorm_after",
    "blocks.{}.mlp.fc1": f"{_LAYER}.intermediate.dense",
    "blocks.{}.mlp.fc2": f"{_LAYER}.output.dense",
}
_EMBEDDINGS = {
    "cls": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed": "embeddings.patch_embeddings.projection",
}
_MARK = "embeddings.patch_embeddings.projection.weight"
_VIT_MARKS = (_MARK, "encoder.layer.0.layernorm_before.weight")

VIT = Format(
    name="Hugging Face's ViT",
    families=(ViTConfig,),
    names=_EMBEDDINGS | _BLOCKS | {"norm": "layernorm"},
    marks=_VIT_MARKS,
    size=vit_size,
    prefixes=("vit.", "deit.", ""),
    ignored=_OLD_TASK,
)

MAE = Format(
    name="Hugging Face's ViT",
    families=(MAEConfig,),
    names=_EMBEDDINGS | _BLOCKS | {"norm": "fc_norm?"},
    marks=_VIT_MARKS,
    size=vit_size,
    prefixes=("vit.", ""),
    ignored=_OLD_TASK + r"|layernorm\.",
)

_DINOV2 = {
    "name": "Hugging Face's DINOv2",
    "families": (DINOv2Config,),
    "size": vit_size,
    "prefixes": ("dinov2.", "dinov2_with_registers.", ""),
    "ignored": _OLD_TASK,
}
_DINOV2_NAMES = (
    _EMBEDDINGS
    | _BLOCKS
    | {
        "registers": "embeddings.register_tokens",
        "blocks.{}.norm1": f"{_LAYER}.norm1",
        "blocks.{}.norm2": f"{_LAYER}.norm2",
        "blocks.{}.gamma1": f"{_LAYER}.layer_scale1.lambda1",
        "blocks.{}.gamma2": f"{_LAYER}.layer_scale2.lambda1",
        "norm": "layernorm",
    }
)

DINOV2 = Format(
    names=_DINOV2_NAMES
    | {
        "blocks.{}.mlp.fc1": f"{_LAYER}.mlp.fc1",
        "blocks.{}.mlp.fc2": f"{_LAYER}.mlp.fc2",
    },
    marks=(_MARK, "encoder.layer.0.mlp.fc1.weight"),
    **_DINOV2,
)

DINOV2_GIANT = Format(
    names=_DINOV2_NAMES
    | {
        "blocks.{}.mlp.fc1": f"{_LAYER}.mlp.weights_in",
        "blocks.{}.mlp.fc2": f"{_LAYER}.mlp.weights_out",
    },
    marks=(_MARK, "encoder.layer.0.mlp.weights_in.weight"),
    **_DINOV2,
)

DINOV3 = Format(
    name="Hugging Face's DINOv3",
    families=(DINOv3Config,),
    names={
        "cls": "embeddings.cls_token",
        "registers": "embeddings.register_tokens",
        "patch_embed": "embeddings.patch_embeddings",
        "blocks.{}.norm1": "layer.{}.norm1",
        "blocks.{}.attn.query": "layer.{}.attention.q_proj",
        "blocks.{}.attn.key": "layer.{}.attention.k_proj",
        "blocks.{}.attn.value": "layer.{}.attention.v_proj",
        "blocks.{}.attn.out": "layer.{}.attention.o_proj",
        "blocks.{}.gamma1": "layer.{}.layer_scale1.lambda1",
        "blocks.{}.norm2": "layer.{}.norm2",
        "blocks.{}.mlp.gate": "layer.{}.mlp.gate_proj",
        "blocks.{}.mlp.fc1": "layer.{}.mlp.up_proj",
        "blocks.{}.mlp.fc2": "layer.{}.mlp.down_proj",
        "blocks.{}.gamma2": "layer.{}.layer_scale2.lambda1",
        "norm": "norm",
    },
    marks=("embeddings.register_tokens", "layer.0.attention.q_proj.weight"),
    size=vit_size,
    ignored=_OLD_TASK,
    zero=r"layer\.\d+\.attention\.[qv]_proj\.bias",
)

_TOWER = {
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed": "embeddings.patch_embedding",
    "blocks.{}.norm1": "encoder.layers.{}.layer_norm1",
    "blocks.{}.attn.query": "encoder.layers.{}.self_attn.q_proj",
    "blocks.{}.attn.key": "encoder.layers.{}.self_attn.k_proj",
    "blocks.{}.attn.value": "encoder.layers.{}.self_attn.v_proj",
    "blocks.{}.attn.out": "encoder.layers.{}.self_attn.out_proj",
    "blocks.{}.norm2": "encoder.layers.{}.layer_norm2",
    "blocks.{}.mlp.fc1": "encoder.layers.{}.mlp.fc1",
    "blocks.{}.mlp.fc2": "encoder.layers.{}.mlp.fc2",
    "norm": "post_layernorm",
}

CLIP = Format(
    name="Hugging Face's CLIP",
    families=(CLIPConfig,),
    # The misspelling is in the files.
    names=_TOWER | {"cls": "embeddings.class_embedding", "pre_norm": "pre_layrnorm"},
    marks=("embeddings.patch_embedding.weight", "pre_layrnorm.weight"),
    size=vit_size,
    prefixes=("vision_model.", ""),
    ignored=r".*position_ids$|visual_projection\.",
)

SIGLIP = Format(
    name="Hugging Face's SigLIP",
    families=(SigLIPConfig,),
    names=_TOWER
    | {
        "head.probe": "head.probe",
        "head.query.kernel": "head.attention.in_proj_weight[0/3]",
        "head.key.kernel": "head.attention.in_proj_weight[1/3]",
        "head.value.kernel": "head.attention.in_proj_weight[2/3]",
        "head.query.bias": "head.attention.in_proj_bias[0/3]",
        "head.key.bias": "head.attention.in_proj_bias[1/3]",
        "head.value.bias": "head.attention.in_proj_bias[2/3]",
        "head.out": "head.attention.out_proj",
        "head.norm": "head.layernorm",
        "head.mlp.fc1": "head.mlp.fc1",
        "head.mlp.fc2": "head.mlp.fc2",
    },
    marks=("embeddings.patch_embedding.weight", "head.attention.in_proj_weight"),
    size=vit_size,
    prefixes=("vision_model.", ""),
    ignored=r".*position_ids$",
)

_BLOCK = "encoder.layers.{}.blocks.{}"

SWIN = Format(
    name="Hugging Face's Swin",
    families=(SwinConfig,),
    names={
        "patch_embed": "embeddings.patch_embeddings.projection",
        "patch_norm": "embeddings.norm",
        "stages.{}.blocks.{}.norm1": f"{_BLOCK}.layernorm_before",
        "stages.{}.blocks.{}.attn.query": f"{_BLOCK}.attention.self.query",
        "stages.{}.blocks.{}.attn.key": f"{_BLOCK}.attention.self.key",
        "stages.{}.blocks.{}.attn.value": f"{_BLOCK}.attention.self.value",
        "stages.{}.blocks.{}.attn.position_bias": (
            f"{_BLOCK}.attention.self.relative_position_bias_table"
        ),
        "stages.{}.blocks.{}.attn.out": f"{_BLOCK}.attention.output.dense",
        "stages.{}.blocks.{}.norm2": f"{_BLOCK}.layernorm_after",
        "stages.{}.blocks.{}.mlp.fc1": f"{_BLOCK}.intermediate.dense",
        "stages.{}.blocks.{}.mlp.fc2": f"{_BLOCK}.output.dense",
        "stages.{}.merging.norm": "encoder.layers.{}.downsample.norm",
        "stages.{}.merging.reduction": "encoder.layers.{}.downsample.reduction",
        "norm": "layernorm",
    },
    marks=(_MARK, "encoder.layers.0.blocks.0.layernorm_before.weight"),
    size=timm.swin_size,
    prefixes=("swin.", ""),
    ignored=_OLD_TASK + r"|.*relative_position_index$",
)

_STAGE = "encoder.stages.{}"

CONVNEXT = Format(
    name="Hugging Face's ConvNeXt",
    families=(ConvNeXtConfig,),
    names={
        "stem": "embeddings.patch_embeddings",
        "stem_norm": "embeddings.layernorm",
        "stages.{}.downsample.norm": f"{_STAGE}.downsampling_layer.0",
        "stages.{}.downsample.conv": f"{_STAGE}.downsampling_layer.1",
        "stages.{}.blocks.{}.conv": f"{_STAGE}.layers.{{}}.dwconv",
        "stages.{}.blocks.{}.norm": f"{_STAGE}.layers.{{}}.layernorm",
        "stages.{}.blocks.{}.mlp.fc1": f"{_STAGE}.layers.{{}}.pwconv1",
        "stages.{}.blocks.{}.mlp.fc2": f"{_STAGE}.layers.{{}}.pwconv2",
        "stages.{}.blocks.{}.gamma": f"{_STAGE}.layers.{{}}.layer_scale_parameter",
        "norm": "layernorm",
    },
    marks=(
        "embeddings.patch_embeddings.weight",
        "encoder.stages.0.layers.0.dwconv.weight",
    ),
    size=timm.convnext_size,
    prefixes=("convnext.", ""),
    ignored=_OLD_TASK,
)

RESNET = Format(
    name="Hugging Face's ResNet",
    families=(ResNetConfig,),
    names={
        "stem": "embedder.embedder.convolution",
        "stem_norm": "embedder.embedder.normalization",
        "stages.{}.blocks.{}.convs.{}": f"{_STAGE}.layers.{{}}.layer.{{}}.convolution",
        "stages.{}.blocks.{}.norms.{}": (
            f"{_STAGE}.layers.{{}}.layer.{{}}.normalization"
        ),
        "stages.{}.blocks.{}.shortcut": f"{_STAGE}.layers.{{}}.shortcut.convolution",
        "stages.{}.blocks.{}.shortcut_norm": (
            f"{_STAGE}.layers.{{}}.shortcut.normalization"
        ),
    },
    marks=(
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
    ),
    size=timm.resnet_size,
    prefixes=("resnet.", ""),
    ignored=_OLD_TASK + r"|.*num_batches_tracked$",
)

FORMATS = (
    *(DINOV2, DINOV2_GIANT, DINOV3, CLIP, SIGLIP),
    *(VIT, MAE, SWIN, CONVNEXT, RESNET),
)
