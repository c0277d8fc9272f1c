"""The public PyTorch code's parameters in this project's tree, for golden cases.

Layouts there: Linear (out, in), Conv (out, in, kh, kw).
"""

import re

import numpy as np

from vpt_jax.types import Path

_NORM = {"weight": "scale", "bias": "bias"}
_LINEAR = {"weight": "kernel", "bias": "bias"}
_BLOCK_NORMS = {"attention_norm": "norm1", "ffn_norm": "norm2"}
_TRANSFORMER = "enc.transformer."
_EMBEDDINGS = {
    "position_embeddings": ("pos_embed",),
    "cls_token": ("cls",),
    "patch_embeddings.weight": ("patch_embed", "kernel"),
    "patch_embeddings.bias": ("patch_embed", "bias"),
}


def to_ours(name: str, array: np.ndarray) -> dict[Path, np.ndarray]:
    """The tensors by path that one parameter of the public ViT corresponds to."""
    if name.startswith("head."):
        return {("head", *_head(name)): _layout(array)}
    name = name.removeprefix(_TRANSFORMER)
    if name == "prompt_embeddings":
        return {("edits", "prompt", "tokens", 0): array[0]}
    if name == "deep_prompt_embeddings":
        return {("edits", "prompt", "tokens", i + 1): x for i, x in enumerate(array)}
    if name.startswith("prompt_proj."):
        kind = _LINEAR[name.split(".")[1]]
        return {("edits", "prompt", "project", kind): _layout(array)}
    if name.startswith("embeddings."):
        path = _EMBEDDINGS[name.removeprefix("embeddings.")]
        return {("backbone", *path): array if array.ndim == 3 else _layout(array)}
    if name.startswith("encoder.encoder_norm."):
        return {("backbone", "norm", _NORM[name.split(".")[-1]]): array}
    return {("backbone", "blocks", *_block(name)): _layout(array)}


def _head(name: str) -> Path:
    if name.startswith("head.last_layer."):
        return (_LINEAR[name.split(".")[-1]],)
    raise KeyError(f"no tensor corresponds to {name}")


def _block(name: str) -> Path:
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(\w+)\.(.+)", name)
    if match is None:
        raise KeyError(f"no tensor corresponds to {name}")
    index, part, rest = int(match[1]), match[2], match[3].split(".")
    if part in _BLOCK_NORMS:
        return (index, _BLOCK_NORMS[part], _NORM[rest[0]])
    part = {"attn": "attn", "ffn": "mlp"}[part]
    return (index, part, rest[0], _LINEAR[rest[1]])


def _layout(array: np.ndarray) -> np.ndarray:
    """Output channels last."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
