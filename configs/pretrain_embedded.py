"""Pre-train the embedded backbone on rendered images, in half an hour on 2 cores.

python launch.py --config configs/pretrain_embedded.py --workdir runs/one
python launch.py --config configs/pretrain_embedded.py:2 --workdir runs/two \\
    --config.backbone.checkpoint=runs/one/export/backbone.npz
python launch.py --config configs/pretrain_embedded.py:3 --workdir runs/three \\
    --config.backbone.checkpoint=runs/two/export/backbone.npz

Images of one thing each, then of up to two, then of up to three, of which any is the
class: features that hold what else is in a picture are what prompts can choose from.
The result, runs/three/export/backbone.npz, is what vpt_jax/assets/vit_nano.npz is.
"""

from vpt_jax.config import base
from vpt_jax.errors import UserError

STAGES = {  # task, epochs, learning rate, epochs of warm-up
    "": ("procedural", 10, 1e-3, 1),
    "2": ("procedural2", 4, 5e-4, 0),
    "3": ("procedural3", 3, 5e-4, 0),
}


def get_config(arg: str = ""):
    """Full training of `vit_nano`; `arg`: most things in an image, 1 unless given."""
    if arg not in STAGES:
        raise UserError(f"{arg!r} is none of {', '.join(map(repr, STAGES))}")
    task, epochs, lr, warmup = STAGES[arg]
    config = base(task, "full", "vit_nano")
    config.backbone.checkpoint = "random"
    config.data.split = "train800"
    config.method.backbone_dropout = 0.0
    config.epochs, config.batch_size = epochs, 128
    config.optim.lr, config.optim.warmup_epochs = lr, warmup
    config.optim.weight_decay = 0.05
    config.optim.schedule = "step"
    config.seed = 0
    config.val_every = 1
    return config
