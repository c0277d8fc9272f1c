"""VPT-Deep beside a linear probe, on pairs of digits upon photographs: two minutes.

python launch.py --config configs/quickstart.py
"""

from vpt_jax.config import base


def get_config(arg: str = "vpt_deep"):
    """`arg` is the method; the images and the backbone come with the package."""
    method = arg or "vpt_deep"
    config = base("digits_photo", method, "vit_nano")
    config.epochs = 20
    config.optim.schedule = "step"
    if method == "vpt_deep":  # a few rates were tried on the validation digits
        config.method.dropout = 0.0
        config.optim.lr = 0.25
        config.optim.weight_decay = 0.001
        config.beside = "linear optim.lr=0.02 optim.weight_decay=0"
    return config
