"""The `.npz` files of google-research/big_vision.

Its ViT adds the position embedding of CLS to CLS itself. SigLIP is a pair of towers
of which `params/img/` is the vision one.
"""

from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints.format import Format, vit_size

_BLOCK = "Transformer/encoderblock_{}"
_ATTENTION = "MultiHeadDotProductAttention_0"
_POOL = "MAPHead_0"

_ENCODER = {
    "pos_embed": "pos_embedding",
    "patch_embed": "embedding",
    "blocks.{}.norm1": f"{_BLOCK}/LayerNorm_0",
    "blocks.{}.attn.query": f"{_BLOCK}/{_ATTENTION}/query",
    "blocks.{}.attn.key": f"{_BLOCK}/{_ATTENTION}/key",
    "blocks.{}.attn.value": f"{_BLOCK}/{_ATTENTION}/value",
    "blocks.{}.attn.out": f"{_BLOCK}/{_ATTENTION}/out",
    "blocks.{}.norm2": f"{_BLOCK}/LayerNorm_1",
    "blocks.{}.mlp.fc1": f"{_BLOCK}/MlpBlock_0/Dense_0",
    "blocks.{}.mlp.fc2": f"{_BLOCK}/MlpBlock_0/Dense_1",
    "norm": "Transformer/encoder_norm",
}
_MARKS = ("embedding/kernel", "pos_embedding")

SIGLIP = Format(
    name="big_vision's SigLIP",
    families=(SigLIPConfig,),
    names=_ENCODER
    | {
        "head.probe": f"{_POOL}/probe",
        "head.query": f"{_POOL}/{_ATTENTION}/query",
        "head.key": f"{_POOL}/{_ATTENTION}/key",
        "head.value": f"{_POOL}/{_ATTENTION}/value",
        "head.out": f"{_POOL}/{_ATTENTION}/out",
        "head.norm": f"{_POOL}/LayerNorm_0",
        "head.mlp.fc1": f"{_POOL}/MlpBlock_0/Dense_0",
        "head.mlp.fc2": f"{_POOL}/MlpBlock_0/Dense_1",
    },
    marks=(*_MARKS, f"{_POOL}/probe"),
    size=vit_size,
    layout="flax",
    prefixes=("params/img/", "img/", "params/", ""),
    ignored="head/",
)

VIT = Format(
    name="big_vision's ViT",
    families=(ViTConfig,),
    names=_ENCODER | {"cls": "cls"},
    marks=_MARKS,
    size=vit_size,
    layout="flax",
    prefixes=("params/img/", "img/", "params/", ""),
    ignored="pre_logits/|head/",
)

FORMATS = (SIGLIP, VIT)
