"""The table of methods: all that is particular to one is in its row, and nowhere else.

Defaults are the paper's. `paper` below is its appendix A (tables 6 and 8), `public` its
PyTorch code; tests/test_recipes.py holds the source of each value.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NamedTuple

from vpt_jax.methods import (
    adapter,
    adaptformer,
    bias,
    cls,
    full,
    gated,
    layernorm,
    linear,
    lora,
    mlp,
    partial,
    prompt,
    prompt_add,
    prompt_below,
    prompt_pad,
    prompt_pixel,
    sidetune,
    ssf,
    vfpt,
)

LONG = 100  # prompt tokens from which the paper takes smaller batches


class Batches(NamedTuple):
    """Images of a batch by kind of method, for one backbone."""

    linear: int
    partial: int
    finetune: int
    prompt: int
    long_prompt: int


BATCHES = {
    "vit_b": Batches(2048, 1280, 128, 128, 64),
    "vit_l": Batches(2048, 640, 64, 64, 32),
    "vit_h": Batches(1024, 240, 28, 28, 14),
    "swin": Batches(1024, 1024, 128, 80, 80),
    "convnext": Batches(1024, 1024, 128, 128, 128),
    "resnet": Batches(2048, 2048, 384, 256, 256),
}
"""Paper, table 8; other sizes as the nearest that it has. The rows of Swin, ConvNeXt
and ResNet could not be checked; it has no long prompts there."""

_SIZES = {"l": "vit_l", "so": "vit_l", "h": "vit_h", "g": "vit_h"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What methods of a kind have in common in the paper (tables 6 and 8).

    Attributes:
        optimizer: Of `training.optim.OPTIMIZERS`.
        grid: Of learning rates, of `sweeps.grids.LEARNING_RATES`; backbones and groups
            of tasks with a grid of their own add their name to it.
        batch: A column of `BATCHES`.
    """

    optimizer: str
    grid: str
    batch: str


PROMPT = Kind("sgd", "prompt", "prompt")
LINEAR = Kind("sgd", "linear", "linear")
PARTIAL = Kind("adamw", "finetune", "partial")
FINETUNE = Kind("adamw", "finetune", "finetune")

Lengths = tuple[int, int]
"""P of a task for shallow and for deep prompts."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a method is named, trained, searched and reported.

    Attributes:
        module: The file with `attach` and `group`.
        config: Its dataclass of options.
        kind: Optimizer, grid and batches, as the paper groups its methods.
        base_lr: Learning rate of a single run per 256 images, inside the grid.
        weight_decay: Of a single run; coupled for SGD, decoupled for AdamW.
        warmup_epochs: Of 100.
        batch_size: Of a single run: fits one device, where the paper's may not.
        aliases: Other names, each with the options that it fixes.
        number: The option behind the number of 'mlp-3'.
        defaults: (options given, the task's prompt lengths) to what other options are
            that depend on them.
        axes: What the paper tries along with the learning rate, by kind of backbone
            ('' for those without an entry), as in `config.sweep.over`.
        label: (options, backbone) to the name in reports; None: the method's own.
        exports_backbone: Whether all of the backbone is trained, so that a run exports
            it whole.
    """

    module: ModuleType
    config: type
    kind: Kind
    base_lr: float
    weight_decay: float
    warmup_epochs: int = 10
    batch_size: int = 64
    aliases: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    number: str = ""
    defaults: Callable[[Mapping, Lengths], Mapping] = lambda given, lengths: {}
    axes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label: Callable[[Mapping, str], str] | None = None
    exports_backbone: bool = False

    def paper_batch_size(self, backbone: str, config) -> int:
        """The paper's batch for a backbone by name and the method's options.

        A batch may be larger than the training set, as in the public code: then a step
        sees every image once.
        """
        size = re.split("[^a-z]", backbone.partition("_")[2])[0]
        row = BATCHES.get(family(backbone)) or BATCHES[_SIZES.get(size, "vit_b")]
        if self.kind.batch == "prompt" and getattr(config, "length", 0) >= LONG:
            return row.long_prompt
        return getattr(row, self.kind.batch)


def family(backbone: str) -> str:
    """'resnet' of 'resnet50', 'mae' of 'mae_b16'."""
    return backbone.partition("_")[0].rstrip("0123456789")


# ---- what depends on other options


def _depth_decides(given: Mapping, lengths: Lengths) -> dict:
    """The task's prompt length; dropout on deep prompts only (paper and demo.ipynb)."""
    shallow, deep = lengths
    if given.get("deep", True):
        return {"length": deep, "dropout": 0.1}
    return {"length": shallow, "dropout": 0.0}


def _shallow_length(given: Mapping, lengths: Lengths) -> dict:
    return {"length": lengths[0]}


def _vpt_label(options: Mapping, backbone: str) -> str:
    return "vpt-deep" if options.get("deep", True) else "vpt-shallow"


def _pad_label(options: Mapping, backbone: str) -> str:
    """The paper's VPT of ConvNets is the frame."""
    return "vpt" if family(backbone) in ("convnext", "resnet") else "prompt_pad"


METHODS = {
    "prompt": Recipe(
        *(prompt, prompt.PromptConfig, PROMPT, 1.0, 1e-3),
        aliases={"vpt_deep": {"deep": True}, "vpt_shallow": {"deep": False}},
        defaults=_depth_decides,
        axes={"": "length=1,5,10,50,100,200", "swin": "length=1,5,10,50"},
        label=_vpt_label,
    ),
    "prompt_add": Recipe(
        *(prompt_add, prompt_add.AddConfig, PROMPT, 1.0, 1e-3),
        defaults=_depth_decides,
    ),
    "prompt_pixel": Recipe(prompt_pixel, prompt_pixel.PixelConfig, PROMPT, 1.0, 1e-3),
    "prompt_pad": Recipe(
        *(prompt_pad, prompt_pad.PadConfig, PROMPT, 1.0, 1e-3),
        axes={"": "padding=1,3,5,7,9,11"},
        label=_pad_label,
    ),
    "prompt_below": Recipe(prompt_below, prompt_below.BelowConfig, PROMPT, 1.0, 1e-3),
    "gated": Recipe(
        *(gated, gated.GatedConfig, PROMPT, 1.0, 1e-3),
        aliases={"vpt_gated": {}},
        defaults=_shallow_length,
    ),
    "vfpt": Recipe(
        *(vfpt, vfpt.VfptConfig, PROMPT, 1.0, 1e-3),
        defaults=_depth_decides,
    ),
    "cls": Recipe(
        *(cls, cls.ClsConfig, PROMPT, 1.0, 1e-3),
        aliases={"cls_reinit": {"reinit": True}},
    ),
    "linear": Recipe(linear, linear.LinearConfig, LINEAR, 1.0, 1e-4),
    "mlp": Recipe(
        *(mlp, mlp.MlpConfig, LINEAR, 0.25, 1e-4),
        number="mlp_layers",
        axes={"": "mlp_layers=2,3,5,9"},
    ),
    "sidetune": Recipe(sidetune, sidetune.SidetuneConfig, LINEAR, 0.1, 1e-4),
    "partial": Recipe(
        *(partial, partial.PartialConfig, PARTIAL, 1e-3, 1e-4),
        number="blocks",
    ),
    "bias": Recipe(
        *(bias, bias.BiasConfig, FINETUNE, 5e-3, 1e-4),
        aliases={"bitfit": {}},
    ),
    "adapter": Recipe(
        *(adapter, adapter.AdapterConfig, FINETUNE, 5e-3, 1e-4),
        number="reduction",
        axes={"": "reduction=8,64,256"},
    ),
    "full": Recipe(
        *(full, full.FullConfig, FINETUNE, 1e-3, 1e-4),
        exports_backbone=True,
    ),
    "lora": Recipe(
        *(lora, lora.LoraConfig, FINETUNE, 4e-3, 1e-4),
        number="rank",
    ),
    "ssf": Recipe(ssf, ssf.SsfConfig, FINETUNE, 5e-3, 1e-4),
    "adaptformer": Recipe(
        *(adaptformer, adaptformer.AdaptFormerConfig, FINETUNE, 4e-3, 1e-4),
    ),
    "layernorm": Recipe(layernorm, layernorm.LayerNormConfig, FINETUNE, 5e-3, 1e-4),
}
"""Prompt lengths, frames, reductions and depths to try: paper, section 4 and app. B."""
