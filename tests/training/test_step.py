"""The compiled training program: chunks, trials, batches, failures, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from product import shortened, slow
from training import tiny

from vpt_jax import parallel
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.methods import METHODS, sidetune
from vpt_jax.objectives import classification
from vpt_jax.training import programs, step
from vpt_jax.types import count, flatten

USUAL = ("prompt", "full", "lora", "partial", "bias", "sidetune")
WITH_LENGTH = ("prompt", "prompt_pixel", "prompt_below", "gated", "vfpt")
THIN = {  # AlexNet with a sixteenth of its channels: convolutions of trials are slow
    n: (max(3, i // 16), o // 16, *rest) for n, (i, o, *rest) in sidetune.LAYERS.items()
}
WIDE = ViTConfig(patch=32, width=8, depth=1, heads=2, mlp_dim=16, image_size=64)


def assert_same(a, b, atol=0.0):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def pick(trial, state):
    return jax.tree.map(lambda x: x[trial], state)


def test_any_division_into_chunks_gives_the_same_bits():
    setup, hyper = tiny.make_setup(), tiny.make_hyper([0.1], [1e-3], [7])
    assert setup.steps_per_epoch == 3 and setup.num_steps == 9
    whole = tiny.run(setup, hyper, [9])
    assert_same(tiny.run(setup, hyper, [1, 2, 5, 9]), whole)


@pytest.mark.parametrize("method", shortened(METHODS, USUAL))
def test_a_trial_is_the_same_beside_any_other_in_float64(method, monkeypatch):
    monkeypatch.setattr(sidetune, "LAYERS", THIN)
    options = {"length": 2} if method in WITH_LENGTH else {}
    shape = WIDE if method == "sidetune" else tiny.CONFIG
    with jax.enable_x64(True):
        setup = tiny.make_setup(method, options, jnp.float64, shape)
        pair, other = (
            tiny.run(setup, tiny.make_hyper(*first_and_second), [5])
            for first_and_second in (
                ([0.1, 0.02], [0.0, 1e-2], [3, 4]),
                ([0.3, 0.02], [1e-3, 1e-2], [7, 4]),
            )
        )
        first, second = (pick(t, (pair, other)) for t in range(2))
        assert_same(*second, 1e-10)
        assert np.abs(np.subtract(*(x.loss for x in first))).max() > 1e-3
        trained = jax.tree.leaves(pair.trainable)
        assert trained and {x.dtype for x in trained} == {np.dtype("float64")}


@pytest.mark.parametrize("method", ["prompt", slow("full")])
def test_trials_at_once_equal_single_runs_in_float64(method):
    with jax.enable_x64(True):
        setup = tiny.make_setup(method, dtype=jnp.float64)
        lr, decay, seed = [0.1, 0.02], [0.0, 1e-2], [3, 4]
        both = tiny.run(setup, tiny.make_hyper(lr, decay, seed), [5])
        for t in range(2):
            hyper = tiny.make_hyper(lr[t : t + 1], decay[t : t + 1], seed[t : t + 1])
            assert_same(pick(t, both), pick(0, tiny.run(setup, hyper, [5])), 1e-10)


def test_where_nothing_is_frozen_a_cpu_holds_one_trial_s_activations():
    shape = ViTConfig(patch=4, width=32, depth=2, heads=2, mlp_dim=64, image_size=32)
    setup, used = tiny.make_setup("full", shape=shape), []
    images, labels = jnp.zeros((10, 32, 32, 3), jnp.uint8), jnp.zeros(10, int)
    for trials in (1, 4):
        hyper = tiny.make_hyper(*([0.1] * trials, [0] * trials, [1] * trials))
        mesh = parallel.make_mesh(trials, 4)
        frozen = programs.place_frozen(setup.network, mesh)
        state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
        rest = frozen, images, labels, hyper, jnp.int32(0), jnp.int32(1)
        program = programs.compile_chunk(setup, mesh, "all", state, *rest)
        used.append(program.memory_analysis().temp_size_in_bytes)
    assert used[1] < 2 * used[0]  # 3.1 times as much when all run at once


def test_steps_equal_a_plain_loop():
    """Order, partial last batch, schedule and optimizer, written out once more."""
    setup = tiny.make_setup(options={"dropout": 0.0})
    hyper = tiny.make_hyper([0.1], [1e-2], [5])
    graphdef, _, frozen, stats = setup.network.parts
    key = jax.random.fold_in(jax.random.key(jnp.uint32(5)), 0)
    model = setup.network.build(key, setup.network.pretrained.params)
    params = setup.network.split(model)[1]
    images, labels = tiny.make_data()

    @jax.jit
    @jax.value_and_grad
    def gradient(params, x, labels):
        log_p = jax.nn.log_softmax(nnx.merge(graphdef, params, frozen, stats)(x))
        return -log_p[jnp.arange(len(labels)), labels].mean()

    velocity = jax.tree.map(jnp.zeros_like, params)
    epoch_losses, n = [], 0
    for epoch in range(3):
        order = np.asarray(step.epoch_order(setup, jnp.uint32(5), epoch))[:10]
        assert sorted(order) == list(range(10))
        total = 0.0
        for rows in (order[:4], order[4:8], order[8:]):
            x = setup.network.normalised(images[rows])

            loss, grads = gradient(params, x, labels[rows])
            total += float(loss) * len(rows)
            at = n / 3
            cosine = 0.5 * (1 + np.cos(np.pi * (at - 1) / 2))
            lr = 0.1 * (at if at < 1 else cosine)

            def move(path, p, g, v, lr=lr):
                is_bias = [k.key for k in path] == ["head", "bias"]
                v = 0.9 * v + g + (0 if is_bias else 1e-2 * p)
                return p - lr * v, v

            moved = jax.tree_util.tree_map_with_path(move, params, grads, velocity)
            pair = jax.tree.structure((0, 0))
            params, velocity = jax.tree.transpose(
                jax.tree.structure(params), pair, moved
            )
            n += 1
        epoch_losses.append(total)
    found = tiny.run(setup, hyper, [9])
    np.testing.assert_allclose(found.loss[0], epoch_losses, rtol=1e-4)
    assert_same(pick(0, found.trainable), params, 1e-5)


def test_orders_differ_between_epochs_and_seeds():
    setup = tiny.make_setup()
    orders = {
        tuple(np.asarray(step.epoch_order(setup, jnp.uint32(seed), epoch)))
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_trial_that_diverges_stops_and_the_other_goes_on():
    setup = tiny.make_setup()
    pair = tiny.run(setup, tiny.make_hyper([0.1, 1e30], [0, 0], [1, 1]), [9])
    assert pair.alive.tolist() == [True, False]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(pair.trainable))
    alone = tiny.run(setup, tiny.make_hyper([0.1, 0.1], [0, 0], [1, 1]), [9])
    assert_same(pick(0, pair.trainable), pick(0, alone.trainable), 1e-6)


def test_optimizer_state_is_for_trained_tensors_only():
    setup = tiny.make_setup()
    state = tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [1])
    assert count(state.opt_state) == count(state.trainable)
    assert all(path[0] in ("head", "edits") for path in flatten(state.trainable))


def test_frozen_weights_keep_their_bits():
    setup = tiny.make_setup()
    before = jax.device_get(setup.network.parts[2])
    tiny.run(setup, tiny.make_hyper([0.5], [1e-2], [1]), [9])
    assert_same(jax.device_get(setup.network.parts[2]), before)


def test_linear_trains_on_cached_features():
    setup = tiny.make_setup("linear")
    assert setup.cut == 4  # embed, two blocks, pool
    cached = tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [9])
    uncached = tiny.make_setup("linear", cached=False)
    plain = tiny.run(uncached, tiny.make_hyper([0.1], [0], [1]), [9])
    assert_same(cached.trainable, plain.trainable, 1e-5)


def test_bfloat16_trains_float32_tensors():
    setup = tiny.make_setup(dtype=jnp.bfloat16)
    state = tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [9])
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {np.dtype("float32")}
    exact = tiny.run(tiny.make_setup(), tiny.make_hyper([0.1], [0], [1]), [9])
    np.testing.assert_allclose(state.loss, exact.loss, rtol=0.05)


def test_a_step_traces_once(monkeypatch):
    setup, calls = tiny.make_setup(), []
    original = classification.loss
    monkeypatch.setattr(
        classification, "loss", lambda *a: calls.append(1) or original(*a)
    )
    tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [1, 2, 9])
    assert len(calls) == 1
