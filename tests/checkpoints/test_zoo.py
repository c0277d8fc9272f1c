"""The table of pre-trained files: complete, and with the right parameter counts."""

import dataclasses
import hashlib
import math
import pathlib
import re

import pytest

from vpt_jax import checkpoints
from vpt_jax.backbones import CONFIGS
from vpt_jax.checkpoints import fetch, files
from vpt_jax.checkpoints.files import READERS
from vpt_jax.checkpoints.zoo import ZOO, address, identify, lookup, verify
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
    "vit_b8_augreg": (768, 12, 3072, 8),
    "vit_b16_augreg": (768, 12, 3072, 16),
    "vit_b32_augreg": (768, 12, 3072, 32),
    "vit_l16_augreg": (1024, 24, 4096, 16),
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
    assert entry.name == name
    assert entry.image_size == CONFIGS[name].image_size
    if name != "vit_nano":
        assert fetch._web_address(entry.url).startswith("https://")
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.url.startswith("hf://") or pathlib.Path(entry.url).suffix in READERS
    assert re.fullmatch("(bilinear|bicubic)( [0-9]+)?", entry.resize)
    known = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0", "LicenseRef-DINOv3"
    assert entry.licence in known
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
    size, _, release = name.removeprefix("vit_").partition("_")
    folder, _, file = lookup(name).url.removeprefix("gs://vit_models/").partition("/")
    stem = file.removesuffix(".npz").removeprefix("ViT-").partition("-")[0]
    assert stem.replace("_", "").lower() == size
    newer = release == "augreg" or size in ("ti16", "s16")
    assert folder == ("augreg" if newer else "imagenet21k")


@pytest.mark.parametrize(
    "name", [name for name in ZOO if ZOO[name].url.startswith("hf://")]
)
def test_no_file_of_the_hub_follows_what_is_there_today(name):
    entry = lookup(name)
    if "@" in entry.url:
        assert re.fullmatch(r"hf://[^@]+@[0-9a-f]{40}(/[^@]+)?", address(entry))
        return
    assert entry.unverified and entry.sha256 is None
    [row] = [line for line in markdown().splitlines() if f"| `{name}` |" in line]
    assert row.endswith(f"| unverified: {entry.unverified} |")
    wanted = rf"{name} is unverified: no revision of {entry.url} .*{entry.url}@COMMIT"
    with pytest.raises(UserError, match=wanted):
        checkpoints.locate(name, None)
    with pytest.raises(UserError, match=wanted):
        checkpoints.locate(name, entry.url)


def test_dinov2_is_cropped_as_timm_does():
    rows = {e.resize for name, e in ZOO.items() if name.startswith("dinov2")}
    assert rows == {"bicubic 518"}


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


@pytest.fixture
def download(monkeypatch, tmp_path):
    """What stands for a download: a file of given content for any address."""

    def give(content):
        def fetched(source, sha256=None):
            path = tmp_path / "model.safetensors"
            path.write_bytes(content)
            return fetch._local(str(path), sha256)

        monkeypatch.setattr(fetch, "fetch", fetched)

    return give


def test_one_byte_more_is_refused(download, monkeypatch):
    content = b"weights"
    sha256 = hashlib.sha256(content).hexdigest()
    entry = dataclasses.replace(lookup("deit_ti16"), sha256=sha256)
    monkeypatch.setitem(ZOO, "deit_ti16", entry)
    download(content)
    for source in (None, entry.url):  # the zoo's own, and a manifest that names it
        assert checkpoints.locate("deit_ti16", source)[2] == sha256
    download(b"weighty")
    for source in (None, entry.url):
        with pytest.raises(UserError, match=f"expected {sha256}"):
            checkpoints.locate("deit_ti16", source)


def test_an_unknown_hash_is_printed(download, capsys):
    download(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    checkpoints.locate("dino_s16", None)
    line = capsys.readouterr().err
    assert "no hash is known" in line and "dino_s16" in line and sha256 in line


def test_without_torch_the_safetensors_are_named(monkeypatch):
    monkeypatch.setattr(files, "lacking", lambda source: "needs torch")
    wanted = "needs torch; .*checkpoint=hf://timm/resnet50.tv_in1k@78f3ecfdb"
    with pytest.raises(UserError, match=wanted):
        checkpoints.locate("resnet50", None)
    with pytest.raises(UserError, match="resnet18.tv_in1k@COMMIT"):
        checkpoints.locate("resnet18", None)


def test_files_are_known_by_hash_or_name(tmp_path):
    known = lookup("deit_ti16")
    assert known.sha256 is not None
    assert identify(tmp_path / "any.safetensors", known.sha256) == known
    kept = fetch.kept_as(lookup("dino_s16").url)
    assert identify(kept, "0") == lookup("dino_s16")
    assert identify(tmp_path / "ViT-B_16.npz", "0") == lookup("vit_b16")
    repository = tmp_path / "vit_large_patch14_reg4_dinov2.lvd142m"
    file = repository / "model.safetensors"
    assert identify(file, "0") == lookup("dinov2_l14_reg4")
    assert identify(tmp_path / "model.safetensors", "0") is None


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
