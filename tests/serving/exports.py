"""Exports of tasks that were never trained: tensors drawn from a seed."""

import dataclasses
import math

import numpy as np

from vpt_jax import export, resolution
from vpt_jax.types import flatten, unflatten


def random_like(tree, seed: int):
    """Every tensor random, so that norms, gates, scales and biases carry a signal."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = math.prod(leaf.shape[:-1]) if path[-1] == "kernel" else 25
        noise = rng.normal(size=leaf.shape) / np.sqrt(fan_in)
        noise = np.abs(noise) + 0.5 if path[-1] == "var" else noise
        noise = noise + 1 if path[-1] in ("scale", "temperature") else noise
        return np.asarray(noise, np.float32)

    leaves = flatten(tree)
    return unflatten(tree, {path: draw(path, leaf) for path, leaf in leaves.items()})


def write(folder, config, classes, seed):
    """An export of `config` with these names of classes; returns its folder."""
    experiment = resolution.resolve(config)
    choice = dataclasses.replace(experiment.network, num_classes=len(classes))
    network = choice.make()
    _, trainable, _, stats = network.parts
    about = {
        "config": experiment.content,
        "classes": list(classes),
        "objective": experiment.data.task.kind,
        "seed": seed,
        "status": "ok",
        "validation": None,
        "metrics": {"top1": 50.0},
    }
    drawn = random_like(trainable, seed), random_like(stats, seed + 1)
    export.write(folder, network, *drawn, about, False)
    return folder


def names(task: str, count: int):
    """Of the classes of a task."""
    return [f"{task}_{c}" for c in range(count)]
