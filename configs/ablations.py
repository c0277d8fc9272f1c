"""The ablations of the paper, one per figure or table; every variant is a sweep.

python launch.py --mode sweep --config configs/ablations.py:NAME[,TASK[,BACKBONE]]

NAME: a key of ABLATIONS below; TASK: cifar100 unless given, or a group of tasks;
--mode report draws the figure.
"""

from vpt_jax.config import base
from vpt_jax.errors import UserError

ABLATIONS = {
    # figure 5
    "location": (
        "Prompt location",
        "prepend: method.name=vpt_deep",
        "add: method.name=prompt_add",
        "prepend-pixel: method.name=prompt_pixel",
        "concat-channel: method.name=prompt_below",
    ),
    # figure 6
    "length": (
        "Prompt length",
        *(f"deep = {p}: method.length={p}" for p in (1, 5, 10, 50, 100, 200)),
        *(
            f"shallow = {p}: method.name=vpt_shallow method.length={p}"
            for p in (1, 5, 10, 50, 100, 200)
        ),
    ),
    # figure 7
    "depth": (
        "Prompted blocks",
        *(f"first = {n}: method.layers={n}" for n in (1, 3, 6, 9, 12)),
        *(f"last = {n}: method.layers=-{n}" for n in (1, 3, 6, 9, 12)),
    ),
    # figure 8
    "pooling": (
        "Final output",
        "CLS: method.pool=original",
        "image-pool: method.pool=image",
        "prompt-pool: method.pool=prompt",
        "global-pool: method.pool=image+prompt",
    ),
    # figure 11: a longer sequence, or learning? Untrained prompts are each seed's own
    "learning": (
        "Longer sequence or learning",
        "default: method.trained=True",
        "fixed prompts: method.trained=False",
        "P = 1: method.length=1",
        "CLS: method.name=cls",
        "linear: method.name=linear",
    ),
    # the [CLS] token beside prompts: `cls` and `cls+prompt` of the public code
    "cls": (
        "Tuning of [CLS]",
        "vpt-deep: method.name=vpt_deep",
        "vpt-deep + CLS: method.name=vpt_deep+cls",
        "vpt-deep + new CLS: method.name=vpt_deep+cls-reinit",
        "CLS: method.name=cls",
        "new CLS: method.name=cls-reinit",
    ),
    # figure 12
    "sharing": (
        "Prompt sharing",
        "default: method.share=none",
        "shared-intra: method.share=intra",
        "shared-inter: method.share=inter",
        "shared-all: method.share=all",
        "P = 1: method.length=1",
        "shallow: method.name=vpt_shallow",
    ),
    # figure 13; prototypes need as many prompts as classes
    "initialisation": (
        "Prompt initialisation",
        "uniform: method.init=xavier",
        "normal: method.init=normal",
        "CLS: method.init=cls",
        "CLS of each block: method.init=cls_layers",
        "fixed CLS: method.init=cls method.trained=False",
    ),
    # table 9
    "bias": (
        "VPT with bias tuning",
        "shallow: method.name=vpt_shallow",
        "shallow + bias: method.name=vpt_shallow+bias",
        "deep: method.name=vpt_deep",
        "deep + bias: method.name=vpt_deep+bias",
        "bias: method.name=bias",
    ),
    # table 11; 380 prompts make the sequence as long as that of 384 px
    "resolution": (
        "Resolution",
        *(
            f"{method} {size}: method.name={name} image_size={size}"
            for method, name in (("vpt-deep", "vpt_deep"), ("full", "full"))
            for size in (224, 384)
        ),
        "vpt-deep 224, P = 380: method.name=vpt_deep method.length=380 image_size=224",
    ),
    # figure 15: the seeds of a sweep, together
    "ensemble": (
        "Ensembles of five",
        "vpt-deep: method.name=vpt_deep",
        "linear: method.name=linear",
        "bias: method.name=bias",
        "full: method.name=full",
    ),
    # figure 3
    "size": (
        "Training images [%]",
        *(
            f"{name} = {n}: method.name={method} data.train_percent={n}"
            for name, method in (
                ("vpt-deep", "vpt_deep"),
                ("full", "full"),
                ("linear", "linear"),
                ("adapter", "adapter"),
            )
            for n in (10, 20, 40, 60, 80, 100)
        ),
    ),
    # figure 4; the larger ones train for 50 epochs
    "scale": (
        "Backbone scale",
        *(
            f"{method} {size}: method.name={method} backbone.name={size}"
            f" epochs={100 if size == 'vit_b16' else 50}"
            for method in ("vpt_deep", "full", "linear")
            for size in ("vit_b16", "vit_l16", "vit_h14")
        ),
    ),
}


def get_config(arg: str):
    """`arg`: a name of ABLATIONS, then a task (cifar100) and a backbone (vit_b16)."""
    name, *rest = arg.split(",")
    if name not in ABLATIONS or len(rest) > 2 or not all(rest):
        raise UserError(
            f"{arg!r} is not of the form configs/ablations.py:NAME[,TASK[,BACKBONE]]; "
            f"names: {', '.join(ABLATIONS)}"
        )
    task, backbone = [*rest, *("cifar100", "vit_b16")[len(rest) :]]
    config = base(task, "vpt_deep", backbone)
    config.sweep.ablation, *variants = ABLATIONS[name]
    config.sweep.variants = tuple(variants)
    return config
