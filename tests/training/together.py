"""Two runs in one of several processes: to be run as a program.

python -m training.together FOLDER CHECKPOINT [PORT NUMBER]
"""

import pathlib
import sys

import conftest

from vpt_jax import api, backbones, parallel
from vpt_jax.config import base


def main(folder: pathlib.Path, checkpoint: str) -> None:
    """One trial whose images are streamed, then two trials with cached features."""
    backbones.CONFIGS["vit_test"] = conftest.VIT_TEST
    for name, method in (("streamed", "vpt_deep"), ("trials", "linear")):
        config = base("digits", method, "vit_test")
        config.backbone.checkpoint = checkpoint
        config.optim.lr, config.optim.weight_decay = 0.1, 1e-3
        config.epochs, config.batch_size, config.data.test_examples = 1, 500, 50
        if name == "trials":
            config.seeds = (1, 2)
        else:
            config.method.length, config.cache.images_gb = 2, 0.0
        print(api.tune(config, folder / name)["test_top1"])


if __name__ == "__main__":
    folder, checkpoint, *where = sys.argv[1:]
    if where:
        port, number = where
        parallel.join(2, f"127.0.0.1:{port}", int(number), timeout=60)
    main(pathlib.Path(folder), checkpoint)
