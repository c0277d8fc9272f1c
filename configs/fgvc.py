"""A fine-grained task of the paper, all its training images, 100 epochs.

python launch.py --config configs/fgvc.py:TASK[,METHOD[,BACKBONE[,tuned]]]

TASK: cub, nabirds, oxford_flowers, stanford_dogs or stanford_cars. --config.data.dir is
the folder that holds TASK/train.json, val.json and test.json, or the TFDS directory.
"""

from vpt_jax.config import arguments, base


def get_config(arg: str):
    """`arg`: a task, then a method (vpt_deep) and a backbone (vit_b16)."""
    config = base(*arguments(arg, __file__))
    config.data.split = "train"  # the public code never trains on the others
    return config
