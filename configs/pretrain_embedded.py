"""Pre-train the embedded backbone on rendered images, in half an hour on 2 cores.

python launch.py --config configs/pretrain_embedded.py --workdir runs/pretrain
python launch.py --config configs/pretrain_embedded.py:scenes --workdir runs/scenes \\
    --config.backbone.checkpoint=runs/pretrain/export/backbone.npz

First images of one thing each, then scenes of several. The result,
runs/scenes/export/backbone.npz, is what vpt_jax/assets/vit_nano.npz is.
"""

from vpt_jax.config import base
from vpt_jax.errors import UserError


def get_config(arg: str = ""):
    """Full training of `vit_nano`; `arg`: 'scenes' for the second time."""
    if arg not in ("", "scenes"):
        raise UserError(f"{arg!r} is neither empty nor 'scenes'")
    scenes = arg == "scenes"
    config = base("procedural_scenes" if scenes else "procedural", "full", "vit_nano")
    config.backbone.checkpoint = "random"
    config.data.split = "train800"
    config.method.backbone_dropout = 0.0
    config.epochs = 7 if scenes else 10
    config.batch_size = 128
    config.optim.lr = 5e-4 if scenes else 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 0 if scenes else 1
    config.optim.schedule = "step"
    config.seed = 0
    config.val_every = 1
    return config
