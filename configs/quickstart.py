"""VPT-Deep on handwritten digits with the embedded backbone: minutes on a laptop.

python launch.py --config configs/quickstart.py
"""

from vpt_jax.config import base


def get_config(arg: str = "vpt_deep"):
    """`arg` is the method; the digits and the backbone come with the package."""
    method = arg or "vpt_deep"
    config = base("digits", method, "vit_nano")
    config.epochs = 50
    if method == "vpt_deep":  # chosen on the 200 validation digits
        config.optim.lr = 1.0
        config.optim.weight_decay = 0.01
    return config
