"""Files of named arrays, read one array at a time and without running their code.

.npz                          NumPy, no pickles
.safetensors                  a JSON header, then raw arrays
.pth .pt .tar .bin            PyTorch, weights only; needs torch
"""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np

from vpt_jax.errors import UserError

# TypeError: a single array (.npy), which is no archive.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, TypeError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
)
_SAFETENSORS_TYPES = {
    **{f"F{n}": np.dtype(f"<f{n // 8}") for n in (16, 32, 64)},
    **{f"I{n}": np.dtype(f"<i{n // 8}") for n in (8, 16, 32, 64)},
    **{f"U{n}": np.dtype(f"<u{n // 8}") for n in (8, 16, 32, 64)},
    "BF16": np.dtype(jnp.bfloat16),
    "BOOL": np.dtype(bool),
}


@dataclasses.dataclass(frozen=True)
class File:
    """What an open checkpoint offers: the names in it, and each array by name."""

    path: pathlib.Path
    keys: frozenset[str]
    read: Callable[[str], np.ndarray]


def lacking(source: str) -> str | None:
    """What is not installed and would be needed to read a file of this name."""
    reader = READERS.get(pathlib.PurePath(source).suffix)
    if reader is not _torch or importlib.util.find_spec("torch"):
        return None
    return (
        "is a PyTorch file and torch is not installed; install torch (pip install "
        "torch), or give a .safetensors or .npz file"
    )


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[File]:
    """The checkpoint at `path`, open while the context lasts.

    Raises:
        UserError: Another ending, or damaged, here or while an array is read.
    """
    if path.suffix not in READERS:
        raise UserError(
            f"checkpoint {path} has the ending {path.suffix!r}; known: "
            f"{', '.join(READERS)}"
        )
    try:
        with READERS[path.suffix](path) as file:
            yield file
    except UserError:
        raise
    except _UNREADABLE as error:
        what = "file of plain arrays" if path.suffix == ".npz" else "file of weights"
        raise UserError(
            f"checkpoint {path} is not a readable {path.suffix} {what} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "download it again or give another config.backbone.checkpoint"
        ) from error


@contextlib.contextmanager
def _npz(path: pathlib.Path) -> Iterator[File]:
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        yield File(path, frozenset(archive.files), archive.__getitem__)


@contextlib.contextmanager
def _safetensors(path: pathlib.Path) -> Iterator[File]:
    # Read by offset: a memory map would keep the whole file resident.
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > size - 8:
            raise ValueError("the header is longer than the file")
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)

        def read(key: str) -> np.ndarray:
            entry = header[key]
            dtype = _SAFETENSORS_TYPES[entry["dtype"]]
            start, end = entry["data_offsets"]
            count = math.prod(entry["shape"])
            if not 0 <= start <= end <= size - 8 - length:
                raise ValueError(f"{key} lies outside the file")
            if end - start != count * dtype.itemsize:
                raise ValueError(f"{key} has another size than its shape says")
            stream.seek(8 + length + start)
            return np.fromfile(stream, dtype, count).reshape(entry["shape"])

        yield File(path, frozenset(header), read)


@contextlib.contextmanager
def _torch(path: pathlib.Path) -> Iterator[File]:
    problem = lacking(str(path))
    if problem:
        raise UserError(f"checkpoint {path} {problem}")
    import torch

    content = torch.load(
        path,
        map_location="cpu",
        weights_only=True,
        mmap=zipfile.is_zipfile(path),  # files of torch < 1.6 cannot be mapped
    )
    for name in ("model", "state_dict"):  # beside the optimizer's state and such
        if isinstance(content.get(name), dict):
            content = content[name]
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}

    def read(key: str) -> np.ndarray:
        tensor = tensors[key].detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    yield File(path, frozenset(tensors), read)


READERS = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".tar": _torch,
    ".bin": _torch,
}
