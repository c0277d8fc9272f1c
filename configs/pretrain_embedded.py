"""Pre-train the embedded backbone on rendered images; about 18 minutes on 2 cores.

python launch.py --config configs/pretrain_embedded.py --workdir runs/pretrain

The result, runs/pretrain/export/backbone.npz, is what vpt_jax/assets/vit_nano.npz is.
"""

from vpt_jax.config import base


def get_config():
    """Full training of `vit_nano` from random weights on `assets.procedural`."""
    config = base("procedural", "full", "vit_nano")
    config.backbone.checkpoint = "random"
    config.data.split = "train800"
    config.method.backbone_dropout = 0.0
    config.epochs = 10
    config.batch_size = 128
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 1
    config.optim.schedule = "step"
    config.seed = 0
    config.val_every = 1
    return config
