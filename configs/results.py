"""Every method on a task, small enough for two CPU cores: what docs/results.md shows.

python launch.py --mode sweep --config configs/results.py:TASK[,BACKBONE] \
    --workdir runs/TASK
python launch.py --mode report --workdir runs --output docs/results.md

TASK: of vpt_jax/data, folder:PATH or tfds:NAME; BACKBONE: deit_ti16 unless given.
Images of at most 112 px, three seeds. A method whose frozen blocks are computed once
is searched as in the paper: all of its grid, 100 epochs, the paper's batches. Any other
has six learning rates, of which the better two go on after a third of the 30 epochs, in
batches of 64; --config.epochs and --config.batch_size change that. The methods are
trained one after the other; the same command continues where it was killed.
"""

import json
import pathlib

from vpt_jax import backbones, methods
from vpt_jax.config import base
from vpt_jax.errors import UserError

CACHED = ("linear", "mlp-3", "partial-1")
TRAINED = (
    *("bias", "adapter", "lora", "vpt_shallow", "vpt_deep", "vpt_deep+bias"),
    "full",
)
BASE_LRS = {
    # The lower part of the public grid: small backbones do not bear more.
    "prompt": (2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
    # The public grid, and a point on either side and within.
    "finetune": (1e-2, 5e-3, 2.5e-3, 1e-3, 5e-4, 1e-4),
}


def get_config(arg: str):
    """`arg`: a task, then a backbone (deit_ti16)."""
    parts = arg.split(",")
    if len(parts) > 2 or not all(parts):
        usage = "configs/results.py:TASK[,BACKBONE]"
        raise UserError(f"{arg!r} is not of the form {usage}")
    task, backbone = [*parts, "deit_ti16"][:2]
    if task.startswith("folder:"):  # absolute, as in folder.py
        path = pathlib.Path(task.removeprefix("folder:")).expanduser().absolute()
        task = f"folder:{path}"
    config = base(task, "linear", backbone)
    config.image_size = min(112, backbones.get_config(backbone, None).image_size)
    config.epochs, config.batch_size = 30, 64
    config.sweep.seeds, config.sweep.halving = (42, 44, 82), 3
    config.sweep.variants = (*map(_cached, CACHED), *map(_trained, TRAINED))
    return config


def _cached(method: str) -> str:
    return f"{method}: method.name={method} epochs=100 batch_size=null sweep.halving=0"


def _trained(method: str) -> str:
    recipe = methods.choose(method, {})[0].recipe
    rates = json.dumps(BASE_LRS[recipe.kind.grid], separators=(",", ":"))
    return (
        f"{method}: method.name={method} sweep.base_lrs={rates} "
        f"sweep.weight_decays=[{recipe.weight_decay}]"
    )
