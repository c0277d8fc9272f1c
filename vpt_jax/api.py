"""The Python interface: `tune` a configuration, `load` what was tuned, one or many,
or `push` it."""

import os

from vpt_jax import exchange, parallel, resolution
from vpt_jax.checkpoints import Pretrained
from vpt_jax.exchange import pytorch
from vpt_jax.exchange.hub import push
from vpt_jax.runs.run import default_path, run
from vpt_jax.serving.bank import Bank
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.load import find, load
from vpt_jax.storage import paths
from vpt_jax.types import Config

__all__ = ["Bank", "Classifier", "load", "push", "tune"]


def tune(
    config: Config,
    workdir: str | os.PathLike | None = None,
    pretrained: Pretrained | None = None,
) -> dict:
    """Tune a backbone on a task, or continue where an earlier call was stopped.

    Args:
        config: From `config.base` or a file of `configs/`.
        workdir: Where all is written; None: `runs/<config>-<hash>`.
        pretrained: The backbone of `config`, if it is in memory already.

    Returns:
        The content of result.json, with 'workdir' added.

    Raises:
        UserError: The configuration, data, checkpoint or workdir cannot be used.
    """
    path = None if workdir is None else paths.workdir(workdir)
    experiment = resolution.resolve(config)
    path = path or default_path(experiment)
    if config.export_torch:
        pytorch.check(experiment.network)
    result = run(experiment, path, pretrained)
    if config.export_torch:
        checkpoint = experiment.network.backbone.checkpoint
        chosen = find(path, None)
        parallel.first(lambda: exchange.write("torch", *chosen, checkpoint))
    return result
