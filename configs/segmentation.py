"""A class for each pixel: SETR-PUP on a ViT, as the paper's Table 3.

python launch.py --config configs/segmentation.py:TASK[,METHOD[,BACKBONE[,tuned]]]

TASK: ade20k (ADEChallengeData2016 in --config.data.dir), oxford_iiit_pet, cityscapes,
or a folder PATH/{images,annotations}/{train,val,test}. METHOD `linear` is the paper's
Head Only. --config.head=linear trains BatchNorm and a 1 x 1 layer, in minutes.

Iterations, batch and schedule are mmsegmentation's for SETR on ADE20K: 160,000 of 16
images, SGD without decay, polynomial to 1e-4, ten times the rate on heads. The rates of
other methods than full and the multiplier 1 of prompts are recollected from the paper's
appendix, unchecked: docs/segmentation.md.
"""

import pathlib

from vpt_jax.config import arguments, base
from vpt_jax.data.mask_sets import TASKS
from vpt_jax.methods import choose

LR, FULL_LR, MIN_LR = 5e-3, 1e-3, 1e-4
ADE_EPOCHS = 127  # of 1,264 steps: 160,528


def get_config(arg: str):
    """`arg`: a task, then a method (vpt_deep) and a backbone (vit_l16, or vit_b16 for
    a folder)."""
    task, *rest = arguments(arg, __file__)
    known = task in TASKS
    if not known:
        task = f"masks:{pathlib.Path(task).expanduser().absolute()}"
    method, backbone, *settings = [*rest, *("vpt_deep", "vit_b16")[len(rest) :]]
    if known and len(rest) < 2:
        backbone = "vit_l16"
    config = base(task, method, backbone, *settings)
    choices = choose(method, {})
    kinds = {choice.recipe.kind.grid for choice in choices}
    full = any(choice.recipe.exports_backbone for choice in choices)
    config.batch_size, config.val_every = 16, 10
    config.optim.name, config.optim.schedule = "sgd", "poly"
    config.optim.min_lr, config.optim.warmup_epochs = MIN_LR, 0
    config.optim.head_multiplier = 1.0 if "prompt" in kinds else 10.0
    if not settings:
        config.optim.lr = FULL_LR if full else LR
        config.optim.weight_decay = 0.0
    if full:
        config.method.backbone_dropout = 0.0
    if known:
        config.image_size = 512
    if task == "ade20k":
        config.epochs = ADE_EPOCHS
    return config
