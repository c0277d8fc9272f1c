"""The network of a run, and how exact its weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import tiny

from vpt_jax import parallel
from vpt_jax.resolution import resolve
from vpt_jax.training import programs
from vpt_jax.training.optim import Hyper
from vpt_jax.types import flatten


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("vpt_deep", 0),
        ("full", 2 * 16 + 6),
        ("partial-1", 16 + 2),
        ("bias", 2 * 8 + 2),
        (
            "ssf+bias",
            2 * 8 + 2,
        ),  # wrapped layers
    ],
)
def test_trained_weights_are_the_file_s_and_frozen_ones_rounded(
    new_tiny, checkpoint, method, trained
):
    """As an accelerator keeps them: the frozen ones in bfloat16."""
    config = new_tiny()
    config.method.name, config.method.length = method, None
    config.precision = "bfloat16"
    exact = flatten(resolve(new_tiny()).network.load_backbone().params)
    experiment = resolve(config)
    setup = experiment.make_setup(np.zeros(4, np.int32))
    kept = flatten(setup.network.pretrained.params)
    wide = {path for path, x in kept.items() if x.dtype == jnp.float32}
    assert len(wide) == trained
    for path, x in kept.items():
        wanted = exact[path] if path in wide else exact[path].astype(jnp.bfloat16)
        np.testing.assert_array_equal(x, wanted)

    # ---- and that is what training starts from
    mesh = parallel.make_mesh(1, 4)
    hyper = Hyper(jnp.ones(1), jnp.zeros(1), jnp.zeros(1, jnp.uint32))
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    if method == "full":
        for path, x in flatten(state.trainable).items():
            if path[0] == "backbone":
                np.testing.assert_array_equal(x[0], exact[path[1:]])


def test_a_random_backbone_is_rounded_like_a_file(new_tiny):
    config = new_tiny()
    config.backbone.checkpoint, config.precision = "random", "bfloat16"
    params = resolve(config).network.load_backbone().params
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("method", ["prompt", "mlp-2", "sidetune"])
def test_only_the_bias_of_the_last_layer_is_final(method):
    from training.test_step import WIDE

    shape = WIDE if method == "sidetune" else tiny.CONFIG
    network = tiny.make_setup(method, shape=shape).network
    trained = flatten(network.parts[1])
    [path] = network.final_biases
    assert path in trained and trained[path].shape == (tiny.CLASSES,)
