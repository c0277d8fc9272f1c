"""Names of OpenAI's CLIP, which OpenCLIP and Meta's Perception Encoder took over.

The vision tower is `visual.`; what stands elsewhere is the text's.
"""

from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.checkpoints.format import Format, vit_size

_BLOCK = "transformer.resblocks.{}"


def _attention(ours: str, theirs: str) -> dict[str, str]:
    """Names of `torch.nn.MultiheadAttention`."""
    parts = {
        f"{ours}.{name}.{leaf}": f"{theirs}.in_proj_{kind}[{n}/3]"
        for n, name in enumerate(("query", "key", "value"))
        for leaf, kind in (("kernel", "weight"), ("bias", "bias"))
    }
    return parts | {f"{ours}.out": f"{theirs}.out_proj"}


_TOWER = {
    "cls": "class_embedding",
    "pos_embed": "positional_embedding",
    "patch_embed": "conv1",
    "pre_norm": "ln_pre",
    "blocks.{}.norm1": f"{_BLOCK}.ln_1",
    **_attention("blocks.{}.attn", f"{_BLOCK}.attn"),
    "blocks.{}.norm2": f"{_BLOCK}.ln_2",
    "blocks.{}.mlp.fc1": f"{_BLOCK}.mlp.c_fc",
    "blocks.{}.mlp.fc2": f"{_BLOCK}.mlp.c_proj",
    "norm": "ln_post",
}
_MARKS = ("class_embedding", "conv1.weight", "ln_pre.weight")

CLIP = Format(
    name="OpenAI's CLIP",
    families=(CLIPConfig,),
    names=_TOWER,
    marks=_MARKS,
    size=vit_size,
    prefixes=("visual.", ""),
    ignored=r"proj$",
)

PE = Format(
    name="the original Perception Encoder's",
    families=(PEConfig,),
    names=_TOWER
    | _attention("head", "attn_pool.attn")
    | {
        "head.probe": "attn_pool.probe",
        "head.norm": "attn_pool.layernorm",
        "head.mlp.fc1": "attn_pool.mlp.c_fc",
        "head.mlp.fc2": "attn_pool.mlp.c_proj",
    },
    marks=(*_MARKS, "attn_pool.probe"),
    size=vit_size,
    prefixes=("visual.", ""),
    ignored=r"proj$",
)

FORMATS = (PE, CLIP)
