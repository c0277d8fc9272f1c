"""A complete training problem of a few thousand parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vpt_jax import backbones, methods, objectives, parallel
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data import preprocess
from vpt_jax.network import Network
from vpt_jax.training import optim, programs
from vpt_jax.training.setup import Setup

CONFIG = ViTConfig(patch=4, width=8, depth=2, heads=2, mlp_dim=16, image_size=8)
NUM_EXAMPLES, BATCH, EPOCHS, CLASSES = 10, 4, 3, 3


def make_setup(
    method="prompt", options=None, dtype=jnp.float32, shape=CONFIG, **changes
):
    chosen = methods.choose(method, options or {})
    image_size = shape.image_size
    seen = methods.image_size(chosen, image_size)
    shape = dataclasses.replace(shape, image_size=seen)
    model = backbones.FAMILIES[ViTConfig](shape, rngs=nnx.Rngs(0))
    params = nnx.as_pure(nnx.state(model))
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    graphdef, _ = nnx.split(backbones.abstract(shape, dtype))
    network = {
        "pretrained": Pretrained(shape, graphdef, params, "random", "random"),
        "method": chosen,
        "objective": objectives.OBJECTIVES["classification"],
        "head": "linear",
        "num_classes": CLASSES,
        "image_size": image_size,
        "preset": preprocess.PRESETS["inception"],
        "scan": False,
        "remat": False,
        "shard": False,
    }
    network |= {key: changes.pop(key) for key in network if key in changes}
    values = {
        "network": Network(**network),
        "num_examples": NUM_EXAMPLES,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "warmup_epochs": 1,
        "schedule": "step",
        "optimizer": "sgd",
        "momentum": 0.9,
        "class_weights": np.ones(CLASSES, np.float32),
    }
    return Setup(**values | changes)


def make_data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_EXAMPLES, 8, 8, 3), np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, CLASSES, NUM_EXAMPLES))


def make_hyper(lr, weight_decay, seed):
    return optim.Hyper(
        jnp.asarray(lr, jnp.result_type(float)),
        jnp.asarray(weight_decay, jnp.result_type(float)),
        jnp.asarray(seed, jnp.uint32),
    )


def run(setup, hyper, stops):
    """The state after training in chunks that end at `stops`."""
    mesh = parallel.make_mesh(len(hyper.seed), setup.batch_size)
    hyper = jax.device_put(hyper, parallel.over_trials(mesh))
    images, labels = jax.device_put(make_data(), parallel.replicated(mesh))
    frozen = programs.place_frozen(setup.network, mesh)
    if setup.cut:
        images = programs.make_prefix(setup.network, setup.cut, mesh)(frozen, images)
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    chunk = programs.make_chunk(setup, mesh)
    for start, stop in zip([0, *stops], stops, strict=False):
        start, stop = jnp.int32(start), jnp.int32(stop)
        state = chunk(state, frozen, images, labels, hyper, start, stop)
    return parallel.fetch(state)
