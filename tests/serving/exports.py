"""Exports of tasks that were never trained: tensors drawn from a seed."""

import dataclasses

import jax
import numpy as np

from vpt_jax import export, resolution


def write(folder, config, num_classes, seed):
    """An export of `config` with so many classes; returns its folder."""
    experiment = resolution.resolve(config)
    network = dataclasses.replace(experiment.network, num_classes=num_classes).make()
    rng = np.random.default_rng(seed)
    trainable, stats = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), network.parts[1::2]
    )
    about = {
        "config": experiment.content,
        "classes": [f"{folder.name}_{c}" for c in range(num_classes)],
        "objective": "classification",
        "seed": seed,
        "status": "ok",
        "validation": None,
        "metrics": {"top1": 50.0},
    }
    export.write(folder, network, trainable, stats, about, False)
    return folder
