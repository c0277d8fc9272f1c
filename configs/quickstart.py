"""VPT-Deep on handwritten digits with the embedded backbone: minutes on a laptop.

python launch.py --config configs/quickstart.py
"""

from vpt_jax.config import base


def get_config(arg: str = "vpt_deep"):
    """`arg` is the method; the digits and the backbone come with the package."""
    config = base("digits", arg or "vpt_deep", "vit_nano")
    config.epochs = 50
    return config
