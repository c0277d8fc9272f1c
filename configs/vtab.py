"""A task of VTAB-1k with the paper's protocol: 1,000 images, 100 epochs.

python launch.py --config configs/vtab.py:TASK[,METHOD[,BACKBONE[,tuned]]]

TASK: one of vpt_jax/data/vtab.py; for --mode sweep, prepare and doctor also natural,
specialized, structured or all. With `tuned`, learning rate, weight decay and options
are those that a sweep found: a row of configs/tuned.csv.
"""

from vpt_jax.config import arguments, base


def get_config(arg: str):
    """`arg`: a task, then a method (vpt_deep) and a backbone (vit_b16)."""
    return base(*arguments(arg, __file__))
