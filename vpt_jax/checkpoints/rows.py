"""The table of pre-trained files: one row for each backbone that has a name.

The ViT files are those of the original release (google-research/vision_transformer,
Apache-2.0) in the public bucket `gs://vit_models`. `imagenet21k/` belongs to "An Image
is Worth 16x16 Words" (arXiv 2010.11929) and is what VPT tunes; `augreg/` belongs to
"How to train your ViT?" (arXiv 2106.10270): of each size the file that its authors list
(`howto-i21k-*` in google-research/big_vision), for the sizes that the first release
lacks and, as `_augreg`, beside the others.

The other backbones of the VPT paper come as the PyTorch files of their authors, which
need torch to be read; the rest as safetensors or NumPy files where there are such.

A hash that the publisher states is cut as it states it. A full one is that of the file
at the revision named, as the Hub or public projects that pin it show it; where none was
found none is made up, and the first download prints what it got.
"""

import dataclasses
import importlib.resources

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BUCKET = "gs://vit_models"
FACEBOOK = "https://dl.fbaipublicfiles.com"
SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
TORCHVISION = "https://download.pytorch.org/models"
NO_REVISION = "which revision of the repository it is"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pre-trained file and what has to be known to use it."""

    name: str  # of the backbone whose default checkpoint this is
    # What `fetch` takes: an address, or a path for an embedded file. One of the Hub
    # names its revision, or is not followed.
    url: str
    num_params: int  # backbone without head, at `image_size`
    licence: str  # SPDX identifier
    # Interpolation, straight to the square; with a number: the shorter side to that
    # many pixels, aspect ratio kept, then the central square.
    resize: str
    image_size: int = 224  # side in pixels
    # Preprocessing of the pre-training, on images in [0, 1]. The VPT paper's runs
    # replace mean and std by ImageNet's.
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sha256: str | None = None
    size_bytes: int | None = None
    paper_row: str | None = None  # the backbone's row in the VPT paper, if it has one
    # All that the READMEs of VPT and MAE give, and what is in PyTorch's file names.
    md5_prefix: str | None = None
    sha256_prefix: str | None = None
    safetensors: str | None = None  # the same weights for those without torch
    unverified: str | None = None  # what of this row no publisher's text confirms


def _vit(name: str, file: str, num_params: int, **kwargs) -> Entry:
    """A file of the original ViT release, trained on inputs in [-1, 1] at 224."""
    url = f"{BUCKET}/{file}.npz"
    about = (num_params, "Apache-2.0", "bilinear", 224, HALF, HALF)
    return Entry(name, url, *about, **kwargs)


def _augreg(name: str, run: str, num_params: int, **kwargs) -> Entry:
    size, _, rest = run.partition(" ")
    return _vit(name, f"augreg/{size}-i21k-300ep-lr_0.001-{rest}", num_params, **kwargs)


def _mae(name: str, size: str, num_params: int, **kwargs) -> Entry:
    url = f"{FACEBOOK}/mae/pretrain/mae_pretrain_vit_{size}.pth"
    return Entry(name, url, num_params, "CC-BY-NC-4.0", "bicubic 256", **kwargs)


def _moco(name: str, file: str, num_params: int, **kwargs) -> Entry:
    """The files of linear evaluation, as VPT uses: the encoder in them is frozen.

    Resized as `main_lincls.py:290-291` of facebookresearch/moco-v3 does, which leaves
    torchvision its default.
    """
    url = f"{FACEBOOK}/moco-v3/{file}"
    return Entry(name, url, num_params, "CC-BY-NC-4.0", "bilinear 256", **kwargs)


def _swin(name: str, file: str, num_params: int, size: int = 224, **kwargs) -> Entry:
    resize = "bicubic 256" if size == 224 else "bicubic"
    if size == 384:
        kwargs["unverified"] = "the resize: that of its fine-tuned sibling"
    timm = file.removesuffix("_22k") + (".ms_in22k" if "22k" in file else ".ms_in1k")
    kwargs["safetensors"] = f"hf://timm/{timm}"
    return Entry(name, f"{SWIN}/{file}.pth", num_params, "MIT", resize, size, **kwargs)


def _convnext(name: str, size: str, num_params: int, **kwargs) -> Entry:
    run, kind = (
        ("1k_224_ema", "1k") if size in ("tiny", "small") else ("22k_224", "22k")
    )
    kwargs["safetensors"] = f"hf://timm/convnext_{size}.fb_in{kind}"
    url = f"{FACEBOOK}/convnext/convnext_{size}_{run}.pth"
    return Entry(name, url, num_params, "MIT", "bicubic 256", **kwargs)


def _resnet(name: str, sha256_prefix: str, num_params: int, **kwargs) -> Entry:
    kwargs.setdefault("safetensors", f"hf://timm/{name}.tv_in1k")
    kwargs["sha256_prefix"] = sha256_prefix
    url = f"{TORCHVISION}/{name}-{sha256_prefix}.pth"
    return Entry(name, url, num_params, "BSD-3-Clause", "bilinear 256", **kwargs)


def _hub(repository: str, revision: str | None, file: str = "") -> str:
    at = f"@{revision}" if revision else ""
    return f"hf://{repository}{at}{'/' if file else ''}{file}"


def _timm(name: str, model: str, revision: str | None, *args, **kwargs) -> Entry:
    """A file of timm's at a revision, None for one that is not known."""
    if revision is None:
        kwargs["unverified"] = NO_REVISION
    return Entry(name, _hub(f"timm/{model}", revision), *args, **kwargs)


def _deit(name: str, size: str, revision: str, num_params: int, **kwargs) -> Entry:
    about = (num_params, "Apache-2.0", "bicubic 256")
    return _timm(name, f"deit_{size}_patch16_224.fb_in1k", revision, *about, **kwargs)


def _dino(name: str, url: str, num_params: int, **kwargs) -> Entry:
    return Entry(name, url, num_params, "Apache-2.0", "bicubic 256", **kwargs)


def _dinov2(name: str, url: str, num_params: int, **kwargs) -> Entry:
    return Entry(name, url, num_params, "Apache-2.0", "bicubic 518", 518, **kwargs)


def _dinov2_timm(size: str, revision: str) -> str:
    return _hub(f"timm/vit_{size}_dinov2.lvd142m", revision)


def _clip(name: str, url: str, num_params: int, **kwargs) -> Entry:
    about = (num_params, "MIT", "bicubic 224", 224, CLIP_MEAN, CLIP_STD)
    return Entry(name, url, *about, **kwargs)


def _siglip(name: str, url: str, num_params: int, size: int = 224, **kwargs) -> Entry:
    about = (num_params, "Apache-2.0", "bicubic", size, HALF, HALF)
    return Entry(name, url, *about, **kwargs)


def _siglip2(
    name: str, model: str, revision: str | None, num_params: int, size: int, **kwargs
) -> Entry:
    about = (num_params, "Apache-2.0", "bilinear", size, HALF, HALF)
    return _timm(name, f"vit_{model}.v2_webli", revision, *about, **kwargs)


def _dinov3(name: str, size: str, revision: str | None, num_params: int, **kw) -> Entry:
    """Meta's licence has terms of its own, among them that it goes with every copy:
    https://ai.meta.com/resources/models-and-libraries/dinov3-license/."""
    about = (num_params, "LicenseRef-DINOv3", "bilinear", 256)
    return _timm(name, f"vit_{size}_patch16_dinov3.lvd1689m", revision, *about, **kw)


def _pe(
    name: str, model: str, revision: str | None, num_params: int, size: int
) -> Entry:
    about = (num_params, "Apache-2.0", "bilinear", size, HALF, HALF)
    return _timm(name, f"vit_pe_core_{model}.fb", revision, *about)


def _eva02(name: str, size: str, revision: str | None, num_params: int, **kw) -> Entry:
    about = (num_params, "MIT", "bicubic 248", 224, CLIP_MEAN, CLIP_STD)
    return _timm(name, f"eva02_{size}_patch14_224.mim_in22k", revision, *about, **kw)


ENTRIES = (
    Entry(  # part of the package: nothing to compare it with
        "vit_nano",
        str(importlib.resources.files("vpt_jax") / "assets" / "vit_nano.npz"),
        691_488,
        "Apache-2.0",
        "bilinear",
        32,
        HALF,
        HALF,
    ),
    _augreg("vit_ti16", "Ti_16 aug_none-wd_0.03-do_0.0-sd_0.0", 5_524_416),
    _augreg("vit_s16", "S_16 aug_light1-wd_0.03-do_0.0-sd_0.0", 21_665_664),
    _vit("vit_b8", "imagenet21k/ViT-B_8", 85_807_872),
    _vit(
        "vit_b16",
        "imagenet21k/ViT-B_16",
        85_798_656,
        paper_row="ViT-B/16 sup IN-21k",
        md5_prefix="d9715d",
        size_bytes=412_815_506,
    ),
    _vit("vit_b32", "imagenet21k/ViT-B_32", 87_455_232),
    _vit(
        "vit_l16",
        "imagenet21k/ViT-L_16",
        303_301_632,
        paper_row="ViT-L/16 sup IN-21k",
    ),
    _vit("vit_l32", "imagenet21k/ViT-L_32", 305_510_400),
    _vit(
        "vit_h14",
        "imagenet21k/ViT-H_14",
        630_764_800,
        paper_row="ViT-H/14 sup IN-21k",
    ),
    # timm's B/8, B/32 and L/16 are other runs of the same release.
    _augreg("vit_b8_augreg", "B_8 aug_medium2-wd_0.1-do_0.0-sd_0.0", 85_807_872),
    _augreg(
        "vit_b16_augreg",
        "B_16 aug_medium1-wd_0.1-do_0.0-sd_0.0",
        85_798_656,
        safetensors="hf://timm/vit_base_patch16_224.augreg_in21k",
    ),
    _augreg("vit_b32_augreg", "B_32 aug_light1-wd_0.1-do_0.0-sd_0.0", 87_455_232),
    _augreg("vit_l16_augreg", "L_16 aug_strong1-wd_0.1-do_0.0-sd_0.0", 303_301_632),
    _deit(
        "deit_ti16",
        "tiny",
        "80e968688553f219e4a86f940ed945a23709c16f",
        5_524_416,
        size_bytes=22_883_348,
        sha256="21d4764d94f6c3ffdb6da3581115a0a1ee2d505537d96883b540e54766407c9e",
    ),
    _deit(
        "deit_s16",
        "small",
        "91327a9c99f98fe6b524cd4d397b7226b80e1365",
        21_665_664,
        size_bytes=88_216_496,
        sha256="1e747b4a8d0df2cfbd3c450e8c97685d867448ab0c2ddbfb34b6885f5cb23e5b",
    ),
    _deit(
        "deit_b16",
        "base",
        "b78cc5532a69df6bcad9c3a8d76653fd20b31ac6",
        85_798_656,
        size_bytes=346_284_714,
        sha256="cd2da27b74ed7f68b599f16c77af3e1e80f01c75f9ad96029d22ce747a247e8e",
    ),
    _dino(
        "dino_s16",
        _hub(
            "timm/vit_small_patch16_224.dino",
            "10e440b8a34dfd657a90f2fcaa988c6b6a2f0da4",
        ),
        21_665_664,
    ),
    _dino(
        "dino_b16",
        f"{FACEBOOK}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        85_798_656,
        safetensors="hf://timm/vit_base_patch16_224.dino",
    ),
    _mae(
        "mae_b16",
        "base",
        85_798_656,
        paper_row="ViT-B/16 MAE",
        md5_prefix="8cad7c",
        size_bytes=343_249_461,
        sha256="aec5f0b68e5f3193a00b07bc65a37440db549c15b36b8bea242606cc40c4bc5d",
        safetensors="hf://timm/vit_base_patch16_224.mae",
    ),
    _mae(
        "mae_l16",
        "large",
        303_301_632,
        md5_prefix="b8b06e",
        safetensors="hf://timm/vit_large_patch16_224.mae",
    ),
    _mae(
        "mae_h14",
        "huge",
        630_764_800,
        md5_prefix="9bdbb0",
        safetensors="hf://timm/vit_huge_patch14_224.mae",
    ),
    _moco("mocov3_s16", "vit-s-300ep/linear-vit-s-300ep.pth.tar", 21_665_664),
    _moco(
        "mocov3_b16",
        "vit-b-300ep/linear-vit-b-300ep.pth.tar",
        85_798_656,
        paper_row="ViT-B/16 MoCo v3",
        md5_prefix="8f39ce",
    ),
    _swin("swin_t", "swin_tiny_patch4_window7_224", 27_519_354),
    _swin("swin_s", "swin_small_patch4_window7_224", 48_837_258),
    _swin(
        "swin_b",
        "swin_base_patch4_window7_224_22k",
        86_743_224,
        paper_row="Swin-B IN-22k",
        md5_prefix="bf9cc1",
    ),
    _swin("swin_l", "swin_large_patch4_window7_224_22k", 194_995_476),
    _swin("swin_b_384", "swin_base_patch4_window12_384_22k", 86_878_584, 384),
    _swin("swin_l_384", "swin_large_patch4_window12_384_22k", 195_198_516, 384),
    _convnext("convnext_t", "tiny", 27_820_128),
    _convnext("convnext_s", "small", 49_454_688),
    _convnext("convnext_b", "base", 87_566_464, paper_row="ConvNeXt-B IN-22k"),
    _convnext("convnext_l", "large", 196_230_336),
    _convnext("convnext_xl", "xlarge", 348_147_968),
    _resnet("resnet18", "f37072fd", 11_176_512),
    _resnet("resnet34", "b627a593", 21_284_672),
    _resnet(
        "resnet50",
        "0676ba61",
        23_508_032,
        paper_row="ResNet-50 IN-1k",
        safetensors=_hub(
            "timm/resnet50.tv_in1k", "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa"
        ),
    ),
    _resnet("resnet101", "63fe2227", 42_500_160),
    _resnet("resnet152", "394f9c45", 58_143_808),
    _dinov2(
        "dinov2_s14",
        _dinov2_timm("small_patch14", "4610ca143709d58a633b6397a74412c2c3842454"),
        22_056_192,
        size_bytes=88_240_510,
        sha256="04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
    ),
    _dinov2(
        "dinov2_b14",
        _dinov2_timm("base_patch14", "4685c99dabffe5affac90bd99dbffd25801ae58d"),
        86_579_712,
        size_bytes=346_334_872,
        sha256="55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
    ),
    _dinov2(
        "dinov2_l14",
        _dinov2_timm("large_patch14", "4741e1cafbf45415e77074bb0cb42dba76c8684a"),
        304_367_616,
        size_bytes=1_217_502_758,
        sha256="0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355",
    ),
    _dinov2(
        "dinov2_g14",
        f"{FACEBOOK}/dinov2/dinov2_vitg14/dinov2_vitg14_pretrain.pth",
        1_136_479_232,
        safetensors="hf://timm/vit_giant_patch14_dinov2.lvd142m",
    ),
    _dinov2(
        "dinov2_s14_reg4",
        f"{FACEBOOK}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        22_057_728,
        safetensors="hf://timm/vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    _dinov2(
        "dinov2_b14_reg4",
        _dinov2_timm("base_patch14_reg4", "3b06466a5548c52b8b98822e1390987695fcbf82"),
        86_582_784,
        size_bytes=346_344_168,
        sha256="c24ecfb4a1d8ca79193f6b9efcffc461872a09ddac43a0931357e4802931a006",
    ),
    _dinov2(
        "dinov2_l14_reg4",
        _dinov2_timm("large_patch14_reg4", "f3c408e77602bb412aa65fb03dfa0d5f95cb3832"),
        304_371_712,
    ),
    _dinov2(
        "dinov2_g14_reg4",
        _dinov2_timm("giant_patch14_reg4", "a2208b21b069f6b2e45999870fcce4b7e43d1a2c"),
        1_136_485_376,
    ),
    # timm's repositories hold the whole CLIP, text and all, under OpenAI's names.
    _clip(
        "clip_b32",
        _hub(
            "timm/vit_base_patch32_clip_224.openai",
            "a6f597a30f7b82c51704746581f9a4e41421e878",
            "open_clip_model.safetensors",
        ),
        87_456_000,
        size_bytes=605_143_284,
        sha256="e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
    ),
    _clip(
        "clip_b16",
        _hub(
            "timm/vit_base_patch16_clip_224.openai",
            "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
            "open_clip_model.safetensors",
        ),
        85_799_424,
        size_bytes=598_516_980,
        sha256="4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
    ),
    _clip(
        "clip_l14",
        _hub(
            "openai/clip-vit-large-patch14",
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            "model.safetensors",
        ),
        303_179_776,
        size_bytes=1_710_540_580,
        sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
    # Both towers; the image's is read.
    _siglip(
        "siglip_b16",
        "gs://big_vision/siglip/webli_en_b16_224_63724782.npz",
        92_884_224,
        safetensors="hf://timm/vit_base_patch16_siglip_224.webli",
    ),
    _siglip(
        "siglip_l16",
        "gs://big_vision/siglip/webli_en_l16_256_60552751.npz",
        315_956_224,
        256,
        safetensors="hf://timm/vit_large_patch16_siglip_256.webli",
    ),
    _siglip(
        "siglip_so400m14",
        _hub(
            "timm/vit_so400m_patch14_siglip_224.webli",
            "f98276b381081f06e4a3d64b62f25202ebff0978",
        ),
        427_680_704,
    ),
    _siglip2(
        "siglip2_b16",
        "base_patch16_siglip_224",
        "4c3661e5ac879a276ddc5ddc6d3f0ecc78fd5d82",
        92_884_224,
        224,
        size_bytes=371_551_936,
        sha256="9106b0d8d9d02ea90fc3571fffd1557cf444736f695ee40b1e57c856bc3d9494",
    ),
    _siglip2("siglip2_l16", "large_patch16_siglip_256", None, 315_956_224, 256),
    _siglip2(
        "siglip2_so400m14",
        "so400m_patch14_siglip_224",
        "897c2e2e04a678247ec4d1c12cd267c5f9073395",
        427_680_704,
        224,
    ),
    _dinov3(
        "dinov3_s16",
        "small",
        "3bf4720a82ec2066db88137180ff1f83a675cef0",
        21_586_944,
        size_bytes=86_362_376,
        sha256="2a1ec16ae28ffa07bc0ead0241ee7df9fc26451fe6f9f839b7b3afa0a906b040",
    ),
    _dinov3(
        "dinov3_s16plus",
        "small_plus",
        "c35074f0e1a65242948168c9358ce26705c4deb2",
        28_683_264,
        size_bytes=114_750_056,
        sha256="423e7b4b1103de4100a5c19a436cc00f1a994d82835ed51623b209ccfd1e9615",
    ),
    _dinov3(
        "dinov3_b16",
        "base",
        "c6a5fb7d12bbd3cf3b0079253141c3332aaed7da",
        85_641_216,
        size_bytes=342_579_728,
        sha256="1f9ed8a2378d65e24bb710ba522ac9fa7be4e036d7aefb4384ce022833926332",
    ),
    _dinov3(
        "dinov3_l16",
        "large",
        "30c1109559f65dea34316b0d4842d35c5771fe11",
        303_079_424,
        size_bytes=1_212_347_640,
        sha256="45172f209c9583c40538afc26b60a07033e6fcc2e8c30228338e6b2e932e7941",
    ),
    _dinov3("dinov3_h16plus", "huge_plus", None, 840_509_440),
    _pe("pe_core_b16", "base_patch16_224", None, 92_886_528, 224),
    _pe(
        "pe_core_l14",
        "large_patch14_336",
        "e63206c8e3a0e9b699e40f31080eebd78fd2258e",
        316_102_656,
        336,
    ),
    _eva02(
        "eva02_s14",
        "small",
        "79c7d4274f6dbf202549d8f976ae24eeaf97e5ad",
        21_621_120,
        size_bytes=86_499_188,
        sha256="d3d632352efbd0a0a8269dce114ab8a214833f85ce6f738860221f11ab0f0c2f",
    ),
    _eva02("eva02_b14", "base", None, 85_758_720),
    _eva02("eva02_l14", "large", None, 303_268_800),
)
