"""Exports of tiny networks with random tensors: nothing is trained."""

import pathlib

import numpy as np
from flax import nnx
from PIL import Image
from serving import exports

from vpt_jax import backbones
from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import native
from vpt_jax.config import base
from vpt_jax.types import flatten

SHAPE = (8, 32, 2, 4, 64, 32)  # patch, width, depth, heads, MLP, image
DEPTHS = (2, 2, 1, 1)
BACKBONES = {
    "tiny_vit": ViTConfig(*SHAPE),
    "tiny_mae": MAEConfig(*SHAPE),
    "tiny_moco": MoCoConfig(*SHAPE),
    "tiny_clip": CLIPConfig(*SHAPE),
    "tiny_clip_gelu": CLIPConfig(*SHAPE, activation="gelu"),
    "tiny_dinov2": DINOv2Config(*SHAPE),
    "tiny_dinov2_reg": DINOv2Config(*SHAPE, registers=4),
    "tiny_dinov2_giant": DINOv2Config(8, 32, 2, 4, 88, 32, swiglu=True),
    "tiny_siglip": SigLIPConfig(*SHAPE),
    "tiny_dinov3": DINOv3Config(*SHAPE),
    "tiny_dinov3_plus": DINOv3Config(8, 32, 2, 4, 60, 32, swiglu=True),
    "tiny_pe": PEConfig(*SHAPE, native=3),
    "tiny_eva02_small": EVA02Config(8, 32, 2, 4, 85, 32),
    "tiny_eva02": EVA02Config(8, 32, 2, 4, 85, 32, normed=True),
    "tiny_swin": SwinConfig(8, DEPTHS, (1, 2, 2, 4), 4, 2, 32),
    "tiny_convnext": ConvNeXtConfig((1, 1, 2, 1), (8, 12, 16, 24), 32),
    "tiny_resnet18": ResNetConfig((2, 2, 2, 2), False, (4, 6, 8, 12), image_size=32),
    "tiny_resnet50": ResNetConfig((1, 2, 1, 1), True, (4, 6, 8, 12), image_size=32),
}
"""Names that a test has to put in `backbones.CONFIGS`."""


def checkpoint(folder: pathlib.Path, backbone: str) -> pathlib.Path:
    """A file of a random backbone, written once."""
    path = folder / f"{backbone}.safetensors"
    if not path.exists():
        model = backbones.abstract(BACKBONES[backbone])
        native.save(
            path, flatten(exports.random_like(nnx.as_pure(nnx.state(model)), 0))
        )
    return path


def make(
    folder: pathlib.Path,
    name: str,
    backbone: str,
    method: str,
    seed: int = 1,
    **changes,
) -> pathlib.Path:
    """Write an export of a task of ten classes; returns its folder.

    Args:
        folder: Gets the export and the backbone's file.
        name: Of the export.
        backbone: Of `BACKBONES`.
        method: As in the configuration.
        seed: Of the tensors.
        changes: Options of the method, and `preset`.
    """
    config = base("digits", method, backbone)
    config.backbone.checkpoint = str(checkpoint(folder, backbone))
    config.precision = "float32"
    config.data.preset = changes.pop("preset", None)
    for option, value in changes.items():
        config.method[option] = value
    return exports.write(folder / name, config, [*map(str, range(10))], seed)


def draw_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """Image files of several sizes, formats and kinds of pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for n, (height, width, ending) in enumerate(
        [(32, 32, "png"), (41, 67, "png"), (300, 200, "jpg"), (20, 24, "png")]
    ):
        rough = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        image = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{n}.{ending}")
        image.save(paths[-1])
    deep = rng.integers(0, 65536, (30, 40)).astype(np.uint16)
    paths.append(folder / "deep.png")
    Image.fromarray(deep).save(paths[-1])
    return paths
