"""The pre-trained backbones that have a name, and where their files are.

The ViT files are those of the original release (google-research/vision_transformer,
Apache-2.0) in the public bucket `gs://vit_models`: `imagenet21k/` belongs to "An
Image is Worth 16x16 Words" (arXiv 2010.11929) and is what the VPT paper tunes;
`augreg/` belongs to "How to train your ViT?" (arXiv 2106.10270) and fills the sizes
that the first release lacks, with the file that its authors list for each
(`howto-i21k-*` in google-research/big_vision).

The other backbones of the VPT paper come as the PyTorch files of their authors, which
need torch to be read; DeiT, DINOv2, CLIP and SigLIP as timm's safetensors, which do
not.
"""

import dataclasses
import hashlib
import importlib.resources
import os

from vpt_jax.checkpoints.fetch import sha256_of
from vpt_jax.errors import UserError

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BUCKET = "gs://vit_models"
FACEBOOK = "https://dl.fbaipublicfiles.com"
SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
TORCHVISION = "https://download.pytorch.org/models"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pre-trained file and what has to be known to use it."""

    name: str  # of the backbone whose default checkpoint this is
    architecture: str  # key of the table of backbones
    url: str  # what `fetch` takes: an address, or a path for an embedded file
    sha256: str | None  # None: the publisher states none
    size_bytes: int | None
    licence: str  # SPDX identifier
    num_params: int  # backbone without head, at `image_size`
    # Preprocessing of the pre-training, on images in [0, 1]. The VPT paper's runs
    # replace mean and std by ImageNet's.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # Interpolation, straight to the square; with a number: the shorter side to that
    # many pixels, aspect ratio kept, then the central square.
    resize: str
    image_size: int  # side in pixels
    paper_row: str | None  # the backbone's row in the VPT paper, None if it has none
    # All that the READMEs of VPT and MAE give, and what is in PyTorch's file names.
    md5_prefix: str | None = None
    sha256_prefix: str | None = None


def _vit(
    name: str,
    file: str,
    num_params: int,
    paper_row: str | None = None,
    md5_prefix: str | None = None,
) -> Entry:
    """A file of the original ViT release, trained on inputs in [-1, 1] at 224."""
    return Entry(
        name=name,
        architecture=name,
        url=f"{BUCKET}/{file}",
        sha256=None,
        size_bytes=None,
        licence="Apache-2.0",
        num_params=num_params,
        mean=HALF,
        std=HALF,
        resize="bilinear",
        image_size=224,
        paper_row=paper_row,
        md5_prefix=md5_prefix,
    )


def _file(
    name: str,
    url: str,
    num_params: int,
    licence: str,
    resize: str,
    image_size: int = 224,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    **kwargs,
) -> Entry:
    """A file trained on inputs normalised by ImageNet's mean and std."""
    fields = {"paper_row": None, "sha256": None, "size_bytes": None} | kwargs
    return Entry(
        name=name,
        architecture=name,
        url=url,
        licence=licence,
        num_params=num_params,
        mean=mean,
        std=std,
        resize=resize,
        image_size=image_size,
        **fields,
    )


def _mae(name: str, file: str, num_params: int, **kwargs) -> Entry:
    url = f"{FACEBOOK}/mae/pretrain/{file}"
    return _file(name, url, num_params, "CC-BY-NC-4.0", "bicubic 256", **kwargs)


def _moco(name: str, file: str, num_params: int, **kwargs) -> Entry:
    """The files of linear evaluation, as VPT uses: the encoder in them is frozen.

    Resized as `main_lincls.py:290-291` of facebookresearch/moco-v3 does, which leaves
    torchvision its default.
    """
    url = f"{FACEBOOK}/moco-v3/{file}"
    return _file(name, url, num_params, "CC-BY-NC-4.0", "bilinear 256", **kwargs)


def _swin(name: str, file: str, num_params: int, size: int = 224, **kwargs) -> Entry:
    resize = "bicubic 256" if size == 224 else "bicubic"
    return _file(name, f"{SWIN}/{file}", num_params, "MIT", resize, size, **kwargs)


def _convnext(name: str, file: str, num_params: int, **kwargs) -> Entry:
    url = f"{FACEBOOK}/convnext/{file}"
    return _file(name, url, num_params, "MIT", "bicubic 256", **kwargs)


def _resnet(name: str, sha256_prefix: str, num_params: int, **kwargs) -> Entry:
    return _file(
        name,
        f"{TORCHVISION}/{name}-{sha256_prefix}.pth",
        num_params,
        "BSD-3-Clause",
        "bilinear 256",
        sha256_prefix=sha256_prefix,
        **kwargs,
    )


def _dinov2(name: str, repository: str, num_params: int) -> Entry:
    url = f"hf://timm/{repository}.lvd142m"
    return _file(name, url, num_params, "Apache-2.0", "bicubic", 518)


def _clip(name: str, repository: str, num_params: int) -> Entry:
    url = f"hf://timm/{repository}_clip_224.openai"
    return _file(
        name, url, num_params, "MIT", "bicubic 224", mean=CLIP_MEAN, std=CLIP_STD
    )


def _siglip(name: str, repository: str, num_params: int, size: int = 224) -> Entry:
    url = f"hf://timm/{repository}.webli"
    return _file(
        name, url, num_params, "Apache-2.0", "bicubic", size, mean=HALF, std=HALF
    )


def _deit(name: str, repository: str, num_params: int) -> Entry:
    url = f"hf://timm/{repository}.fb_in1k"
    return _file(name, url, num_params, "Apache-2.0", "bicubic 256")


_ENTRIES = (
    Entry(
        name="vit_nano",
        architecture="vit_nano",
        url=str(importlib.resources.files("vpt_jax") / "assets" / "vit_nano.npz"),
        sha256=None,  # part of the package: nothing to compare it with
        size_bytes=None,
        licence="Apache-2.0",
        num_params=691_488,
        mean=HALF,
        std=HALF,
        resize="bilinear",
        image_size=32,
        paper_row=None,
    ),
    _vit(
        "vit_ti16",
        "augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz",
        5_524_416,
    ),
    _vit(
        "vit_s16",
        "augreg/S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",
        21_665_664,
    ),
    # timm's B/8 is another run of the same release, aug_medium1.
    _vit(
        "vit_b8",
        "augreg/B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0.npz",
        85_807_872,
    ),
    _vit(
        "vit_b16",
        "imagenet21k/ViT-B_16.npz",
        85_798_656,
        paper_row="ViT-B/16 sup IN-21k",
        md5_prefix="d9715d",
    ),
    _vit("vit_b32", "imagenet21k/ViT-B_32.npz", 87_455_232),
    _vit(
        "vit_l16",
        "imagenet21k/ViT-L_16.npz",
        303_301_632,
        paper_row="ViT-L/16 sup IN-21k",
    ),
    _vit("vit_l32", "imagenet21k/ViT-L_32.npz", 305_510_400),
    _vit(
        "vit_h14",
        "imagenet21k/ViT-H_14.npz",
        630_764_800,
        paper_row="ViT-H/14 sup IN-21k",
    ),
    _deit("deit_ti16", "deit_tiny_patch16_224", 5_524_416),
    _deit("deit_s16", "deit_small_patch16_224", 21_665_664),
    _deit("deit_b16", "deit_base_patch16_224", 85_798_656),
    _mae(
        "mae_b16",
        "mae_pretrain_vit_base.pth",
        85_798_656,
        paper_row="ViT-B/16 MAE",
        md5_prefix="8cad7c",
    ),
    _mae(
        "mae_l16",
        "mae_pretrain_vit_large.pth",
        303_301_632,
        md5_prefix="b8b06e",
    ),
    _mae(
        "mae_h14",
        "mae_pretrain_vit_huge.pth",
        630_764_800,
        md5_prefix="9bdbb0",
    ),
    _moco("mocov3_s16", "vit-s-300ep/linear-vit-s-300ep.pth.tar", 21_665_664),
    _moco(
        "mocov3_b16",
        "vit-b-300ep/linear-vit-b-300ep.pth.tar",
        85_798_656,
        paper_row="ViT-B/16 MoCo v3",
        md5_prefix="8f39ce",
    ),
    _swin("swin_t", "swin_tiny_patch4_window7_224.pth", 27_519_354),
    _swin("swin_s", "swin_small_patch4_window7_224.pth", 48_837_258),
    _swin(
        "swin_b",
        "swin_base_patch4_window7_224_22k.pth",
        86_743_224,
        paper_row="Swin-B IN-22k",
        md5_prefix="bf9cc1",
    ),
    _swin("swin_l", "swin_large_patch4_window7_224_22k.pth", 194_995_476),
    _swin("swin_b_384", "swin_base_patch4_window12_384_22k.pth", 86_878_584, 384),
    _swin("swin_l_384", "swin_large_patch4_window12_384_22k.pth", 195_198_516, 384),
    _convnext("convnext_t", "convnext_tiny_1k_224_ema.pth", 27_820_128),
    _convnext("convnext_s", "convnext_small_1k_224_ema.pth", 49_454_688),
    _convnext(
        "convnext_b",
        "convnext_base_22k_224.pth",
        87_566_464,
        paper_row="ConvNeXt-B IN-22k",
    ),
    _convnext("convnext_l", "convnext_large_22k_224.pth", 196_230_336),
    _convnext("convnext_xl", "convnext_xlarge_22k_224.pth", 348_147_968),
    _resnet("resnet18", "f37072fd", 11_176_512),
    _resnet("resnet34", "b627a593", 21_284_672),
    _resnet("resnet50", "0676ba61", 23_508_032, paper_row="ResNet-50 IN-1k"),
    _resnet("resnet101", "63fe2227", 42_500_160),
    _resnet("resnet152", "394f9c45", 58_143_808),
    _dinov2("dinov2_s14", "vit_small_patch14_dinov2", 22_056_192),
    _dinov2("dinov2_b14", "vit_base_patch14_dinov2", 86_579_712),
    _dinov2("dinov2_l14", "vit_large_patch14_dinov2", 304_367_616),
    _dinov2("dinov2_g14", "vit_giant_patch14_dinov2", 1_136_479_232),
    _dinov2("dinov2_s14_reg4", "vit_small_patch14_reg4_dinov2", 22_057_728),
    _dinov2("dinov2_b14_reg4", "vit_base_patch14_reg4_dinov2", 86_582_784),
    _dinov2("dinov2_l14_reg4", "vit_large_patch14_reg4_dinov2", 304_371_712),
    _dinov2("dinov2_g14_reg4", "vit_giant_patch14_reg4_dinov2", 1_136_485_376),
    _clip("clip_b32", "vit_base_patch32", 87_456_000),
    _clip("clip_b16", "vit_base_patch16", 85_799_424),
    _clip("clip_l14", "vit_large_patch14", 303_179_776),
    _siglip("siglip_b16", "vit_base_patch16_siglip_224", 92_884_224),
    _siglip("siglip_l16", "vit_large_patch16_siglip_256", 315_956_224, 256),
    _siglip("siglip_so400m14", "vit_so400m_patch14_siglip_224", 427_680_704),
)

ZOO: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def lookup(name: str) -> Entry:
    """The entry of a named backbone.

    Raises:
        UserError: there is none; the message lists the names.
    """
    if name not in ZOO:
        known = ", ".join(ZOO)
        raise UserError(f"no pre-trained file is known for {name!r}; known: {known}")
    return ZOO[name]


def describe(entry: Entry) -> str:
    """What the entry says of the backbone, in one line."""
    mean, std = (" ".join(f"{x:g}" for x in v) for v in (entry.mean, entry.std))
    row = f"; row {entry.paper_row} of the VPT paper" if entry.paper_row else ""
    return (
        f"{entry.num_params:,} parameters, {entry.licence}, pre-trained at "
        f"{entry.image_size} px, {entry.resize}, mean {mean}, std {std}{row}"
    )


def verify(entry: Entry, path: str | os.PathLike) -> str:
    """Checks a file against what its entry states and returns its SHA-256.

    Six digits of an MD5 are no protection against a forged file, but they tell a
    file that was damaged or mixed up.

    Raises:
        UserError: the file is not the one that the entry describes.
    """
    sha256 = sha256_of(path)
    if entry.sha256 and entry.sha256 != sha256:
        raise _not_the_file(entry, path, f"sha256 {sha256}, not {entry.sha256}")
    if entry.sha256_prefix and not sha256.startswith(entry.sha256_prefix):
        raise _not_the_file(
            entry, path, f"sha256 {sha256}, not {entry.sha256_prefix}..."
        )
    if entry.md5_prefix:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, _md5).hexdigest()
        if not md5.startswith(entry.md5_prefix):
            raise _not_the_file(entry, path, f"md5 {md5}, not {entry.md5_prefix}...")
    return sha256


def _md5():
    # Without the flag MD5 is refused on machines in FIPS mode.
    return hashlib.md5(usedforsecurity=False)


def _not_the_file(entry: Entry, path: str | os.PathLike, found: str) -> UserError:
    return UserError(
        f"{os.fspath(path)!r} is not the published file of {entry.name} (it has"
        f" {found}); delete it and fetch {entry.url} again"
    )
