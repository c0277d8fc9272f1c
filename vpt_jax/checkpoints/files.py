"""Files of named arrays, read one array at a time and without running their code.

.npz                          NumPy, no pickles
.safetensors                  a JSON header, then raw arrays
.pth .pt .tar .bin            PyTorch, weights only; needs torch

What a file claims of an array, its shape and type, is known without reading it: a few
megabytes can be packed from zeros that fill a machine's memory. Who reads compares the
header with what is wanted first.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import pathlib
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from vpt_jax.errors import UserError

# TypeError, RuntimeError: contents that are not what their format prescribes.
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
MAX_NPY_HEADER_BYTES = 2**14  # NumPy refuses what is longer, but reads it first
MAX_JSON_BYTES = 10**7  # a hundred times that of the largest backbone
TORCH = (2, 6)  # before, weights_only runs code of a file: CVE-2025-32434


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class File:
    """What an open checkpoint offers: names, and for each a header and an array."""

    path: pathlib.Path
    keys: frozenset[str]
    header: Callable[[str], Header]
    read: Callable[[str], np.ndarray]


def lacking(source: str) -> str | None:
    """What is not installed and would be needed to read a file of this name."""
    reader = READERS.get(pathlib.PurePath(source).suffix)
    if reader is not _torch:
        return None
    instead = "or give a .safetensors or .npz file"
    if not importlib.util.find_spec("torch"):
        return (
            "is a PyTorch file and torch is not installed: pip install "
            f"'vpt_jax[torch]', {instead}"
        )
    version = importlib.metadata.version("torch")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) >= TORCH:
        return None
    return (
        f"is a PyTorch file, which can run code when torch {version} reads it "
        f"(CVE-2025-32434); install torch {TORCH[0]}.{TORCH[1]} or newer, {instead}"
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
    with zipfile.ZipFile(path) as archive:
        members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }

        def header(key: str) -> Header:
            member = members[key]
            # zipfile limits what it unpacks at a time for these two alone.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{key} is compressed in another way than NumPy's")
            with archive.open(member) as stream:
                start = io.BytesIO(stream.read(MAX_NPY_HEADER_BYTES))
            found = _npy_header(start)
            if found.dtype.hasobject:
                raise ValueError(f"{key} holds Python objects")
            if start.tell() + found.nbytes != member.file_size:
                raise ValueError(f"{key} has another size than its header says")
            return found

        def read(key: str) -> np.ndarray:
            header(key)
            with archive.open(members[key]) as stream:
                return npy.read_array(stream, allow_pickle=False)

        yield File(path, frozenset(members), header, read)


def _npy_header(start: io.BytesIO) -> Header:
    """The header at the start of a .npy file, which is left behind it."""
    version = npy.read_magic(start)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:  # 3.0 is for names of fields, which no weights have
        raise ValueError(f"arrays of .npy version {version[0]}.{version[1]}")
    shape, _, dtype = readers[version](start)
    if min(shape, default=0) < 0:
        raise ValueError(f"{shape} is no shape")
    return Header(shape, dtype)


@contextlib.contextmanager
def _safetensors(path: pathlib.Path) -> Iterator[File]:
    # Read by offset: a memory map would keep the whole file resident.
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > size - 8:
            raise ValueError("the header is longer than the file")
        if length > MAX_JSON_BYTES:
            raise ValueError(f"a header of {length:,} bytes describes no backbone")
        entries = json.loads(stream.read(length))
        if not isinstance(entries, dict):
            raise ValueError("the header is no JSON object")
        entries.pop("__metadata__", None)

        def header(key: str) -> Header:
            entry = entries[key]
            start, end = entry["data_offsets"]
            found = Header(_shape(entry), _SAFETENSORS_TYPES[entry["dtype"]])
            if not 0 <= start <= end <= size - 8 - length:
                raise ValueError(f"{key} lies outside the file")
            if end - start != found.nbytes:
                raise ValueError(f"{key} has another size than its shape says")
            return found

        def read(key: str) -> np.ndarray:
            found = header(key)
            stream.seek(8 + length + entries[key]["data_offsets"][0])
            count = math.prod(found.shape)
            return np.fromfile(stream, found.dtype, count).reshape(found.shape)

        yield File(path, frozenset(entries), header, read)


def _shape(entry: dict) -> tuple[int, ...]:
    shape = entry["shape"]
    sizes = isinstance(shape, list) and all(
        isinstance(n, int) and n >= 0 for n in shape
    )
    if not sizes:
        raise ValueError(f"{shape!r} is no shape")
    return tuple(shape)


@contextlib.contextmanager
def _torch(path: pathlib.Path) -> Iterator[File]:
    problem = lacking(str(path))
    if problem:
        raise UserError(f"checkpoint {path} {problem}")
    import torch  # pyright: ignore[reportMissingImports]  (optional)

    mapped = zipfile.is_zipfile(path)  # files of torch < 1.6 are none: no mapping
    if mapped:
        _check_stored(path)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} in place of named tensors")
    for name in ("model", "state_dict"):  # beside the optimizer's state and such
        if isinstance(content.get(name), dict):
            content = content[name]
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }

    def header(key: str) -> Header:
        tensor = tensors[key]
        name = str(tensor.dtype).removeprefix("torch.")
        # `read` gives all floating types, also those that NumPy lacks, as float32.
        dtype = np.dtype("float32" if tensor.is_floating_point() else name)
        return Header(tuple(tensor.shape), dtype)

    def read(key: str) -> np.ndarray:
        tensor = tensors[key].detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    yield File(path, frozenset(tensors), header, read)


def _check_stored(path: pathlib.Path) -> None:
    """torch packs nothing, and would unpack without a limit."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")


READERS = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".tar": _torch,
    ".bin": _torch,
}
