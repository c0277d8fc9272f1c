"""The `.npz` files of the original ViT release (google-research/vision_transformer).

    cls                                             cls
    embedding/{kernel,bias}                         patch_embed
    Transformer/posembed_input/pos_embedding        pos_embed   (resized, see below)
    Transformer/encoderblock_{i}/LayerNorm_0        blocks.{i}.norm1
    .../MultiHeadDotProductAttention_1/query        blocks.{i}.attn.query  (D, D)
    .../MlpBlock_3/Dense_0                          blocks.{i}.mlp.fc1
    Transformer/encoder_norm                        norm

`pre_logits/*` and `head/*`, where a file has them, belong to its old task and are left.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.errors import UserError
from vpt_jax.types import Path, path_name

_ATTENTION = "MultiHeadDotProductAttention_1"
_BLOCK = {
    "LayerNorm_0/scale": ("norm1", "scale"),
    "LayerNorm_0/bias": ("norm1", "bias"),
    "LayerNorm_2/scale": ("norm2", "scale"),
    "LayerNorm_2/bias": ("norm2", "bias"),
    **{
        f"{_ATTENTION}/{name}/{kind}": ("attn", name, kind)
        for name in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    },
    **{
        f"MlpBlock_3/Dense_{n}/{kind}": ("mlp", f"fc{n + 1}", kind)
        for n in (0, 1)
        for kind in ("kernel", "bias")
    },
}
_OUTER = {
    "cls": ("cls",),
    "embedding/kernel": ("patch_embed", "kernel"),
    "embedding/bias": ("patch_embed", "bias"),
    "Transformer/posembed_input/pos_embedding": ("pos_embed",),
    "Transformer/encoder_norm/scale": ("norm", "scale"),
    "Transformer/encoder_norm/bias": ("norm", "bias"),
}
_OLD_TASK = ("pre_logits/", "head/")
# TypeError: a single array (.npy), which is no archive.
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


def table(depth: int) -> dict[str, Path]:
    """Key in the file to path in the backbone, for a ViT of `depth` blocks."""
    blocks = {
        f"Transformer/encoderblock_{i}/{key}": ("blocks", i, *path)
        for i in range(depth)
        for key, path in _BLOCK.items()
    }
    return _OUTER | blocks


def load(
    path: pathlib.Path, config: ViTConfig, shapes: Mapping[Path, tuple[int, ...]], dtype
) -> dict[Path, np.ndarray]:
    """Read every parameter of the backbone from a file, one array at a time.

    Args:
        path: The `.npz` file.
        config: The architecture that the file must hold.
        shapes: Shape of every parameter of the backbone.
        dtype: What to store the parameters in.

    Returns:
        An array for each path in `shapes`.

    Raises:
        UserError: Not a readable `.npz` without pickles, or its keys or shapes do not
            fit; lists all that is missing, unexpected or misshaped.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _read(path, file, config, shapes, dtype)
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(
            f"checkpoint {path} is not a readable .npz file of plain arrays "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "download it again or give another config.backbone.checkpoint"
        ) from error


def save(path: pathlib.Path, leaves: Mapping[Path, np.ndarray], heads: int) -> None:
    """Write backbone parameters by path as a file that `load` reads."""
    depth = 1 + max(path[1] for path in leaves if path[0] == "blocks")
    arrays = {}
    for key, leaf_path in table(depth).items():
        array = np.asarray(leaves[leaf_path], np.float32)
        arrays[key] = array.reshape(_file_shape(leaf_path, array.shape, heads))
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _read(path, file, config, shapes, dtype):
    keys = table(config.depth)
    problems = []
    missing = [key for key in keys if key not in file.files]
    unexpected = [
        key for key in file.files if key not in keys and not key.startswith(_OLD_TASK)
    ]
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    arrays = {}
    for key, leaf_path in keys.items():
        if key in missing:
            continue
        array, wanted = file[key], shapes[leaf_path]
        if leaf_path == ("pos_embed",) and array.ndim == 3:
            array = resize_pos_embed(array, wanted[1])
        if not _fits(leaf_path, array, wanted, config.heads):
            problems.append(f"{key} has shape {array.shape}, wanted {wanted}")
            continue
        if not np.issubdtype(array.dtype, np.floating):
            problems.append(f"{key} holds {array.dtype}, wanted floating point")
            continue
        arrays[leaf_path] = array.reshape(wanted).astype(dtype, copy=False)
    if problems:
        raise UserError(f"checkpoint {path} does not fit: " + "; ".join(problems))
    unset = [path_name(leaf) for leaf in shapes if leaf not in arrays]
    assert not unset, f"parameters that the table does not name: {unset}"
    return arrays


def resize_pos_embed(embedding: np.ndarray, num_tokens: int) -> np.ndarray:
    """Stretch the (1, 1 + g^2, D) grid of position embeddings to `num_tokens`.

    As the public code (`src/models/vit_backbones/vit.py:351-360`): linear
    `scipy.ndimage.zoom` of the grid, the CLS entry kept. A grid that is not square is
    returned as it is.
    """
    old, new = (round((n - 1) ** 0.5) for n in (embedding.shape[1], num_tokens))
    if old == new or old**2 != embedding.shape[1] - 1:
        return embedding
    cls, grid = embedding[:, :1], embedding[0, 1:].reshape(old, old, -1)
    grid = ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    return np.concatenate([cls, grid.reshape(1, new**2, -1)], axis=1)


def _file_shape(path: Path, shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """The file keeps heads apart: (D, H, K), (H, K), and (H, K, D) for `out`."""
    if "attn" not in path:
        return shape
    split = (heads, shape[-1] // heads)
    if path[-2] == "out":
        return (*split, shape[-1]) if path[-1] == "kernel" else shape
    return (*shape[:-1], *split)


def _fits(path: Path, array: np.ndarray, wanted: tuple[int, ...], heads: int) -> bool:
    return array.shape == _file_shape(path, wanted, heads)


def _some(names: list[str], limit: int = 12) -> str:
    """A list of names, shortened."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
