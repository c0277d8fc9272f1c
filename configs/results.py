"""Every method on a task, small enough for two CPU cores: what docs/results.md shows.

python launch.py --mode sweep --config configs/results.py:TASK[,BACKBONE] \
    --workdir runs/TASK
python launch.py --mode report --workdir runs --output docs/results.md

TASK: of vpt_jax/data, folder:PATH or tfds:NAME; BACKBONE: deit_ti16 unless given.
Images of at most 112 px, three seeds. A method whose frozen blocks are computed once
is searched as in the paper: all of its grid, 100 epochs, the paper's batches. Any other
has six learning rates, lower ones for full fine-tuning, of which the better two go on
after a third of the 30 epochs, in batches of 64; --config.epochs and
--config.batch_size change that. Their heads start fitted to the features
(`optim.head_start`): from a random one, prompts in a small backbone need most of such
few epochs until they classify anything. The methods are trained one after the other;
the same command continues where it was killed.
"""

import pathlib

from vpt_jax import backbones, methods
from vpt_jax.config import base
from vpt_jax.errors import UserError

CACHED = ("linear", "mlp-3", "partial-1")
TRAINED = (  # the most telling ones first
    *("vpt_deep", "adapter", "bias", "full"),
    *("lora", "vpt_shallow", "vpt_deep+bias"),
)
# From the public grid of prompts, as far as small backbones bear, to fine-tuning's.
BASE_LRS = "[2.5,0.6,0.15,0.04,0.01,0.0025]"
# The public grid of fine-tuning and two rates above it. At those that a few new layers
# need, a backbone that moves itself unlearns all it knows.
FULL_BASE_LRS = "[0.01,0.005,0.0025,0.001,0.0005,0.0001]"


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
    decay = methods.choose(method, {})[0].recipe.weight_decay
    base_lrs = FULL_BASE_LRS if method == "full" else BASE_LRS
    return (
        f"{method}: method.name={method} optim.head_start=fitted "
        f"sweep.base_lrs={base_lrs} sweep.weight_decays=[{decay}]"
    )
