"""The table of pre-trained files: complete, and with the right parameter counts."""

import dataclasses
import hashlib
import math
import pathlib
import re

import pytest

from vpt_jax.backbones import CONFIGS
from vpt_jax.checkpoints import fetch
from vpt_jax.checkpoints.files import READERS
from vpt_jax.checkpoints.zoo import ZOO, lookup, verify
from vpt_jax.errors import UserError
from vpt_jax.reports.backbones import markdown

# Width, depth, MLP width, patch, as published for each size.
SIZES = {
    "vit_nano": (96, 6, 384, 8),
    "vit_ti16": (192, 12, 768, 16),
    "vit_s16": (384, 12, 1536, 16),
    "vit_b8": (768, 12, 3072, 8),
    "vit_b16": (768, 12, 3072, 16),
    "vit_b32": (768, 12, 3072, 32),
    "vit_l16": (1024, 24, 4096, 16),
    "vit_l32": (1024, 24, 4096, 32),
    "vit_h14": (1280, 32, 5120, 14),
}


def vit_shapes(width, depth, mlp, patch, image_size):
    """The shape of every array of a ViT without head."""
    tokens = 1 + (image_size // patch) ** 2
    block = [(width,)] * 4  # two norms
    block += [(width, width), (width,)] * 4  # query, key, value, out
    block += [(width, mlp), (mlp,), (mlp, width), (width,)]
    stem = [(patch, patch, 3, width), (width,), (1, 1, width), (1, tokens, width)]
    return stem + block * depth + [(width,)] * 2


def test_every_backbone_has_an_entry():
    assert list(ZOO) and set(ZOO) == set(CONFIGS)
    assert len({entry.url for entry in ZOO.values()}) == len(ZOO)


def test_the_page_is_up_to_date():
    """`python -m vpt_jax.reports.backbones docs/backbones.md` writes it."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "backbones.md"
    assert page.read_text() == markdown()
    assert all(f"| `{name}` | {ZOO[name].num_params:,} |" in markdown() for name in ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_entry(name):
    entry = lookup(name)
    assert entry.name == entry.architecture == name
    assert entry.image_size == CONFIGS[name].image_size
    if name != "vit_nano":
        assert fetch._web_address(entry.url).startswith("https://")
    assert entry.url.startswith("hf://") or pathlib.Path(entry.url).suffix in READERS
    assert re.fullmatch("(bilinear|bicubic)( [0-9]+)?", entry.resize)
    assert entry.licence in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0")
    assert all(0 < x < 1 for x in entry.mean + entry.std)


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
    entry = lookup(name)
    shapes = vit_shapes(*SIZES[name], entry.image_size)
    assert entry.num_params == sum(math.prod(shape) for shape in shapes)


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_b16", 85_798_656), ("vit_l16", 303_301_632), ("vit_h14", 630_764_800)],
)
def test_published_parameter_count(name, count):
    assert lookup(name).num_params == count


@pytest.mark.parametrize("name", SIZES)
def test_fields_of_the_original_vits(name):
    entry = lookup(name)
    assert entry.name == entry.architecture == name
    assert entry.url.endswith(".npz")
    assert entry.licence == "Apache-2.0"
    assert entry.mean == entry.std == (0.5, 0.5, 0.5)
    assert entry.resize == "bilinear"
    assert entry.image_size == (32 if name == "vit_nano" else 224)
    assert entry.sha256 is None or len(entry.sha256) == 64
    assert entry.size_bytes is None or entry.size_bytes > 4 * entry.num_params
    is_public = entry.url.startswith("gs://vit_models/")
    assert is_public != (name == "vit_nano")


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"vit_nano"}))
def test_file_is_of_the_named_size(name):
    size = name.removeprefix("vit_")
    folder, _, file = lookup(name).url.removeprefix("gs://vit_models/").partition("/")
    stem = file.removesuffix(".npz").removeprefix("ViT-").partition("-")[0]
    assert stem.replace("_", "").lower() == size
    expected = "augreg" if size in ("ti16", "s16", "b8") else "imagenet21k"
    assert folder == expected


@pytest.mark.parametrize("name", ["mocov3_s16", "mocov3_b16"])
def test_moco_is_resized_as_its_release_does(name):
    """`main_lincls.py:290-291`: Resize(256) as torchvision has it, CenterCrop(224)."""
    assert (lookup(name).resize, lookup(name).image_size) == ("bilinear 256", 224)


def test_rows_of_the_paper():
    rows = {name: entry.paper_row for name, entry in ZOO.items() if entry.paper_row}
    assert rows == {
        "vit_b16": "ViT-B/16 sup IN-21k",
        "vit_l16": "ViT-L/16 sup IN-21k",
        "vit_h14": "ViT-H/14 sup IN-21k",
        "mae_b16": "ViT-B/16 MAE",
        "mocov3_b16": "ViT-B/16 MoCo v3",
        "swin_b": "Swin-B IN-22k",
        "convnext_b": "ConvNeXt-B IN-22k",
        "resnet50": "ResNet-50 IN-1k",
    }


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="'vit_b15'.*vit_nano, vit_ti16.*vit_h14"):
        lookup("vit_b15")


def test_verify(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    entry = lookup("vit_b16")
    bare = dataclasses.replace(entry, md5_prefix=None)
    right = dataclasses.replace(entry, md5_prefix="900150", sha256=sha256)
    assert verify(bare, path) == verify(right, path) == sha256
    with pytest.raises(UserError, match="md5 900150.*, not d9715d"):
        verify(entry, path)
    short = dataclasses.replace(bare, sha256_prefix=sha256[:8])
    assert verify(short, path) == sha256
    with pytest.raises(UserError, match=f"sha256 {sha256}, not 00000000[.]"):
        verify(dataclasses.replace(bare, sha256_prefix="0" * 8), path)
    with pytest.raises(UserError, match=f"sha256 {sha256}, not 00"):
        verify(dataclasses.replace(bare, sha256="0" * 64), path)
