"""Containers: what is looked at before anything is unpacked, and what is refused."""

import importlib.machinery
import importlib.metadata
import io
import json
import struct
import sys
import tracemalloc
import types
import zipfile

import numpy as np
import pytest
from flax import nnx
from numpy.lib import format as npy

from vpt_jax import UserError, backbones, checkpoints
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import files, original_vit, timm
from vpt_jax.types import flatten

CONFIG = ViTConfig(4, 8, 2, 2, 16, 8)
SHAPES = nnx.as_pure(nnx.state(backbones.abstract(CONFIG)))
HUGE = 2**24  # numbers of 4 bytes; a thousandth of that when compressed
LITTLE = 2**23  # bytes


@pytest.fixture
def arrays(tmp_path):
    """The arrays of a ViT under the names of the original release."""
    rng = np.random.default_rng(0)
    leaves = {
        path: rng.standard_normal(leaf.shape).astype(np.float32)
        for path, leaf in flatten(SHAPES).items()
    }
    original_vit.save(tmp_path / "given.npz", leaves, CONFIG.heads)
    return dict(np.load(tmp_path / "given.npz"))


def npy_of(array, **kwargs):
    file = io.BytesIO()
    npy.write_array(file, np.asarray(array), **kwargs)
    return file.getvalue()


def write(path, arrays, compression=zipfile.ZIP_DEFLATED, **members):
    """An .npz with some members replaced by bytes as they are."""
    contents = {key: npy_of(array) for key, array in arrays.items()} | members
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, content in contents.items():
            archive.writestr(f"{key}.npy", content)
    return path


def load(path):
    return checkpoints.load_arrays(path, CONFIG, SHAPES, np.dtype(np.float32))


def refused(path, message):
    """The message, a single line; and next to nothing was unpacked for it."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as error:
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert peak < LITTLE, f"{peak:,} bytes"


# ---- .npz


def test_compressed_arrays_are_read(arrays, tmp_path):
    found = load(write(tmp_path / "a.npz", arrays))
    np.testing.assert_array_equal(found["cls",], arrays["cls"])
    kernel = arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"]
    np.testing.assert_array_equal(found["blocks", 1, "mlp", "fc1", "kernel"], kernel)


def test_columns_first_and_later_headers_are_read(arrays, tmp_path):
    name = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"
    content = npy_of(np.asfortranarray(arrays[name]), version=(2, 0))
    found = load(write(tmp_path / "a.npz", arrays, **{name: content}))
    np.testing.assert_array_equal(
        found["blocks", 0, "mlp", "fc1", "kernel"], arrays[name]
    )


@pytest.mark.parametrize("key", ["cls", "embedding/kernel", "embedding/bias"])
def test_a_huge_array_is_refused_by_its_header(arrays, key, tmp_path):
    arrays[key] = np.zeros(HUGE, np.float32)
    path = write(tmp_path / "a.npz", arrays)
    assert path.stat().st_size < 2**20
    wanted = ".*".join([key, str(HUGE), "wanted|does not fit"])
    refused(path, wanted)


def test_huge_position_embeddings_are_refused_by_their_header(arrays, tmp_path):
    """A grid of any size is stretched, but not one that no image has."""
    name = "Transformer/posembed_input/pos_embedding"
    arrays[name] = np.zeros((1, 1 + 1448**2, 8), np.float32)
    refused(write(tmp_path / "a.npz", arrays), f"{name} has shape .1, 2096705, 8.")


def test_a_huge_array_of_another_type_is_refused_by_its_header(arrays, tmp_path):
    arrays["cls"] = np.zeros((1, 1, 8), f"S{2**22}")
    refused(write(tmp_path / "a.npz", arrays), "cls holds .S4194304, wanted floating")


def test_huge_arrays_that_are_not_wanted_are_left_packed(arrays, tmp_path):
    arrays["head/kernel"] = np.zeros((8, HUGE // 8), np.float32)
    path = write(tmp_path / "a.npz", arrays)
    tracemalloc.start()
    try:
        found = load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found["cls",], arrays["cls"])
    assert peak < LITTLE


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_huge_header_is_refused(arrays, version, tmp_path):
    length = 2**16 - 10 if version == (1, 0) else 2**26
    kind = "<H" if version == (1, 0) else "<I"
    header = npy.magic(*version) + struct.pack(kind, length) + b" " * length
    path = write(tmp_path / "a.npz", arrays, **{"embedding/kernel": header})
    refused(path, "not a readable .npz file of plain arrays")


@pytest.mark.parametrize("change", [lambda c: c + b"more", lambda c: c[:-4]])
def test_a_member_of_another_size_than_its_header_says(arrays, change, tmp_path):
    content = change(npy_of(arrays["cls"]))
    path = write(tmp_path / "a.npz", arrays, cls=content)
    refused(path, "cls has another size than its header says")


def test_objects_are_refused_by_the_header(arrays, tmp_path):
    arrays["cls"] = np.full((1, 1, 8), {}, object)
    refused(write(tmp_path / "a.npz", arrays), "cls holds Python objects")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_numpy_does_not_write(arrays, kind, tmp_path):
    """zipfile unpacks these without a limit, whatever is asked of it."""
    refused(write(tmp_path / "a.npz", arrays, kind), "is compressed in another way")


# ---- .safetensors


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ENTRY | {"data_offsets": [0, 28]}, "lies outside"),
        (ENTRY | {"data_offsets": [-4, 20]}, "lies outside"),
        (ENTRY | {"data_offsets": [24, 0]}, "lies outside"),
        (ENTRY | {"data_offsets": [0, 20]}, "another size"),
        (ENTRY | {"shape": [2, 4]}, "another size"),
        (ENTRY | {"shape": [-2, -3]}, "no shape"),
        (ENTRY | {"shape": [2.0, 3]}, "no shape"),
        (ENTRY | {"shape": "23"}, "no shape"),
        (ENTRY | {"dtype": "F99"}, "F99"),
        ({}, "data_offsets"),
        ([], "list indices"),
        (None, "NoneType"),
    ],
)
def test_entries_that_cannot_be(entry, message, tmp_path):
    path = safetensors(tmp_path / "a.safetensors", {"a": entry}, bytes(24))
    wanted = f"not a readable .safetensors file.*{message}"
    with pytest.raises(UserError, match=wanted), files.opened(path) as file:
        file.header("a")


def test_an_entry_is_described_before_it_is_read(tmp_path):
    data = np.arange(6, dtype=np.float32)
    path = safetensors(tmp_path / "a.safetensors", {"a": ENTRY}, data.tobytes())
    with files.opened(path) as file:
        assert file.header("a") == files.Header((2, 3), np.dtype(np.float32))
        np.testing.assert_array_equal(file.read("a"), data.reshape(2, 3))


@pytest.mark.parametrize("header", [b"3", b"[]", b"null", b'"a"', b"[" * 10_000])
def test_headers_that_are_no_object(header, tmp_path):
    refused(safetensors(tmp_path / "a.safetensors", header), "not a readable")


def test_a_huge_json_header_is_not_read(tmp_path):
    header = b'{"a":' + b" " * files.MAX_JSON_BYTES + b"{}}"
    path = safetensors(tmp_path / "a.safetensors", header)
    refused(path, "header of .* bytes")


# ---- PyTorch


class Tensor:
    """As much of a torch tensor as is looked at before one is read."""

    dtype = "torch.float32"

    def __init__(self, *shape):
        self.shape = shape

    def is_floating_point(self):
        return True


@pytest.fixture
def installed(monkeypatch):
    """Makes believe that torch is installed in a version."""

    def install(version, content=None):
        torch = types.ModuleType("torch")
        torch.load, torch.Tensor = lambda *_, **__: content, Tensor
        torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
        monkeypatch.setitem(sys.modules, "torch", torch)
        real = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata,
            "version",
            lambda name: version if name == "torch" else real(name),
        )

    return install


@pytest.mark.parametrize("ending", [".pth", ".pt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("version", ["1.13.1+cu117", "2.5.1"])
def test_torch_that_runs_code_of_a_file_is_refused(
    installed, version, ending, tmp_path
):
    installed(version)
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"x")
    refused(path, f"torch {version[:4]}.*CVE-2025-32434.*torch 2.6 or newer")
    assert "CVE-2025-32434" in files.lacking(path.name)


@pytest.mark.parametrize("version", ["2.6.0", "2.13.0+cpu", "3.0"])
def test_torch_that_reads_weights_only(installed, version):
    installed(version)
    assert files.lacking("model.pth") is None
    assert files.lacking("model.npz") is None


def test_packed_members_of_a_pytorch_file_are_refused(installed, tmp_path):
    """torch writes none; it would unpack them without a limit."""
    installed("2.6.0")
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(HUGE))
    refused(path, "data.pkl is compressed")


@pytest.mark.parametrize("content", [[], None, Tensor(3), {1: Tensor(3)}])
def test_pytorch_files_of_something_else(installed, content, tmp_path):
    installed("2.6.0", content)
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    refused(path, "not a readable .pth file|of no known format: it holds 0 arrays")


def test_a_tensor_of_another_shape_is_not_read(installed, tmp_path):
    """A few numbers can be repeated without end: `Tensor` has no `float` to call."""
    shapes = {key: Tensor(8) for key in timm.MARKS}
    shapes["patch_embed.proj.weight"] = Tensor(8, 3, 4, 4)
    shapes |= {f"blocks.{i}.norm1.bias": Tensor(8) for i in range(2)}
    installed("2.6.0", shapes | {"norm.bias": Tensor(2**40)})
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    refused(path, r"missing .*norm.bias has shape \(1099511627776,\), wanted \(8,\)")
