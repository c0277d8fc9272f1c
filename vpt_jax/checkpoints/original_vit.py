"""The `.npz` files of the original ViT release (google-research/vision_transformer).

`pre_logits/*` and `head/*`, where a file has them, belong to its old task and are left.
"""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import files
from vpt_jax.checkpoints.format import Format, read, recognise, split_heads, vit_size
from vpt_jax.types import Path

_BLOCK = "Transformer/encoderblock_{}"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_1"

FORMAT = Format(
    name="the original ViT's",
    families=(ViTConfig,),
    names={
        "cls": "cls",
        "pos_embed": "Transformer/posembed_input/pos_embedding",
        "patch_embed": "embedding",
        "blocks.{}.norm1": f"{_BLOCK}/LayerNorm_0",
        "blocks.{}.attn.query": f"{_ATTENTION}/query",
        "blocks.{}.attn.key": f"{_ATTENTION}/key",
        "blocks.{}.attn.value": f"{_ATTENTION}/value",
        "blocks.{}.attn.out": f"{_ATTENTION}/out",
        "blocks.{}.norm2": f"{_BLOCK}/LayerNorm_2",
        "blocks.{}.mlp.fc1": f"{_BLOCK}/MlpBlock_3/Dense_0",
        "blocks.{}.mlp.fc2": f"{_BLOCK}/MlpBlock_3/Dense_1",
        "norm": "Transformer/encoder_norm",
    },
    marks=("embedding/kernel", "Transformer/encoderblock_0/LayerNorm_0/scale"),
    size=vit_size,
    layout="flax",
    ignored="pre_logits/|head/",
)


def load(
    path: pathlib.Path, config: ViTConfig, shapes: Mapping[Path, tuple[int, ...]], dtype
) -> dict[Path, np.ndarray]:
    """Every parameter of the backbone from a file of this format."""
    with files.opened(path) as file:
        return read(file, recognise(file, config, (FORMAT,)), config, shapes, dtype)


def save(
    path: pathlib.Path, leaves: Mapping[Path, np.ndarray | jax.Array], heads: int
) -> None:
    """Write backbone parameters by path as a file that `load` reads."""
    arrays = {}
    for leaf_path, leaf in leaves.items():
        array = np.asarray(leaf, np.float32)
        shape = split_heads(leaf_path, array.shape, heads)
        arrays[FORMAT.source(leaf_path).key] = array.reshape(shape)
    with open(path, "wb") as file:
        np.savez(file, **arrays)
