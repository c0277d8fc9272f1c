"""Any image classification set of TFDS, all images, 100 epochs.

python launch.py --config configs/tfds.py:NAME[,METHOD[,BACKBONE[,tuned]]]

NAME: such as food101 or eurosat/rgb:2.0.0, or the name of a set of your own in
--config.data.dir. vpt_jax/data/tfds_task.py says what is validated and tested on.
"""

from vpt_jax.config import arguments, base


def get_config(arg: str):
    """`arg`: a TFDS name, then a method (vpt_deep) and a backbone (vit_b16)."""
    name, *rest = arguments(arg, __file__, "NAME")
    return base(f"tfds:{name}", *rest)
