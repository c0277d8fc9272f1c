"""One training step on the images of a task, as a run that streams takes it.

All tasks share one head of 555 classes, so that the step is compiled once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from training import tiny

from vpt_jax import parallel
from vpt_jax.data import preprocess
from vpt_jax.training import inputs, programs

NUM_EXAMPLES = 2


@functools.cache
def _program():
    setup = tiny.make_setup(
        "linear",
        num_classes=555,
        num_examples=NUM_EXAMPLES,
        batch_size=NUM_EXAMPLES,
        epochs=1,
        warmup_epochs=0,
        preset=preprocess.get_preset("vpt"),
        class_weights=np.ones(555, np.float32),
        cached=False,
    )
    mesh = parallel.make_mesh(1, NUM_EXAMPLES)
    hyper = tiny.make_hyper([0.1], [0.0], [0])
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    return setup, programs.make_chunk(setup, mesh, "shared"), state, hyper


def train_a_step(task, data_dir):
    """Trains on the first images of a task; they are cut and resized as it says."""
    setup, chunk, state, hyper = _program()
    examples = task.checked("train", data_dir, limit=NUM_EXAMPLES)
    preset = preprocess.get_preset(task.preset)
    network = dataclasses.replace(setup.network, preset=preset)
    own = dataclasses.replace(setup, network=network)
    reader = inputs.Stream(examples, own, 0, slice(0, NUM_EXAMPLES), jnp.asarray)
    labels = jnp.asarray(examples.labels)
    before = jax.device_get(state.trainable["head"])
    state = jax.tree.map(jnp.copy, state)  # the step uses its argument up
    steps = jnp.int32(0), jnp.int32(1)
    after = chunk(state, setup.network.parts[2], reader.at(0), labels, hyper, *steps)
    assert after.alive.tolist() == [True] and 0 < after.loss[0, 0] < 100
    moved = np.asarray(after.trainable["head"]["bias"] - before["bias"])[0]
    # the gradient raises the classes that are there and lowers the others
    assert set(np.flatnonzero(moved > 0)) == set(examples.labels.tolist())
