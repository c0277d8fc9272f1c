"""The compiled training program: chunks, trials, batches, failures, devices."""

import os
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training import tiny

from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.methods import METHODS
from vpt_jax.training import losses, step
from vpt_jax.types import count, flatten

WITH_LENGTH = ("prompt", "prompt_pixel", "prompt_below", "gated", "vfpt")
WIDE = ViTConfig(patch=32, width=8, depth=1, heads=2, mlp_dim=16, image_size=64)


def assert_same(a, b, atol=0.0):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def test_any_division_into_chunks_gives_the_same_bits():
    setup, hyper = tiny.make_setup(), tiny.make_hyper([0.1], [1e-3], [7])
    assert setup.steps_per_epoch == 3 and setup.num_steps == 9
    whole = tiny.run(setup, hyper, [9])
    assert_same(tiny.run(setup, hyper, [1, 2, 5, 9]), whole)


@pytest.mark.parametrize("method", METHODS)
def test_trials_at_once_equal_single_runs_in_float64(method):
    options = {"length": 2} if method in WITH_LENGTH else {}
    shape = WIDE if method == "sidetune" else tiny.CONFIG
    with jax.enable_x64(True):
        setup = tiny.make_setup(method, options, jnp.float64, shape)
        lr, decay, seed = [0.1, 0.02], [0.0, 1e-2], [3, 4]
        both = tiny.run(setup, tiny.make_hyper(lr, decay, seed), [5])
        for t in range(2):
            hyper = tiny.make_hyper(lr[t : t + 1], decay[t : t + 1], seed[t : t + 1])
            one = tiny.run(setup, hyper, [5])
            assert_same(jax.tree.map(lambda x, t=t: x[t : t + 1], both), one, 1e-10)
        trained = jax.tree.leaves(both.trainable)
        assert trained and {x.dtype for x in trained} == {np.dtype("float64")}


def test_steps_equal_a_plain_loop():
    """Order, partial last batch, schedule and optimizer, written out once more."""
    setup = tiny.make_setup(options={"dropout": 0.0})
    hyper = tiny.make_hyper([0.1], [1e-2], [5])
    graphdef, _, frozen, stats = setup.parts
    key = jax.random.fold_in(jax.random.key(jnp.uint32(5)), 0)
    model = setup.build(key, setup.pretrained.params)
    params = setup.split(model)[1]
    images, labels = tiny.make_data()
    velocity = jax.tree.map(jnp.zeros_like, params)
    epoch_losses, n = [], 0
    for epoch in range(3):
        order = np.asarray(step.epoch_order(setup, jnp.uint32(5), epoch))[:10]
        assert sorted(order) == list(range(10))
        total = 0.0
        for rows in (order[:4], order[4:8], order[8:]):
            x = step.prepare(setup, images[rows])

            def loss_of(params, x=x, rows=rows):
                logits = nnx.merge(graphdef, params, frozen, stats)(x)
                log_p = jax.nn.log_softmax(logits)
                return -log_p[jnp.arange(len(rows)), labels[rows]].mean()

            loss, grads = jax.value_and_grad(loss_of)(params)
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
    assert_same(jax.tree.map(lambda x: x[0], found.trainable), params, 1e-5)


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
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
    assert_same(first(pair.trainable), first(alone.trainable), 1e-6)


def test_optimizer_state_is_for_trained_tensors_only():
    setup = tiny.make_setup()
    state = tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [1])
    assert count(state.opt_state) == count(state.trainable)
    assert all(path[0] in ("head", "edits") for path in flatten(state.trainable))


def test_frozen_weights_keep_their_bits():
    setup = tiny.make_setup()
    before = jax.device_get(setup.parts[2])
    tiny.run(setup, tiny.make_hyper([0.5], [1e-2], [1]), [9])
    assert_same(jax.device_get(setup.parts[2]), before)


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


def start_with_devices(program, count, more):
    """A fresh process with so many CPU devices."""
    environment = os.environ | {
        # The same compiler settings as here: they decide the last bits of a draw.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={count}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen([sys.executable, "-c", program], env=environment | more)


def run_with_devices(program, count):
    assert start_with_devices(program, count, {}).wait() == 0


@pytest.mark.parametrize("trials", [1, 4])
def test_eight_devices_equal_one(trials, tmp_path):
    """The batch of one trial over 4 devices; 4 trials over 4 times 2 devices.

    In float64: rounding in float32 grows beyond 1e-5 in a few steps.
    """
    program = f"""
import jax, numpy as np
from training import test_step
assert jax.device_count() == 8
np.savez({str(tmp_path / "state.npz")!r}, *test_step.an_epoch({trials}))
"""
    run_with_devices(program, 8)
    with np.load(tmp_path / "state.npz") as file:
        for name, leaf in zip(file.files, an_epoch(trials), strict=True):
            np.testing.assert_allclose(file[name], leaf, rtol=0, atol=1e-9)


@jax.enable_x64(True)
def an_epoch(trials):
    hyper = tiny.make_hyper([0.1] * trials, [1e-3] * trials, list(range(trials)))
    return jax.tree.leaves(tiny.run(tiny.make_setup(dtype=jnp.float64), hyper, [3]))


# Devices 0 and 1, 2 and 3, ...: the forms in which XLA writes the axis `data` of 4 x 2.
PAIRS = re.compile(
    r"\{\{0,1\},\{2,3\},\{4,5\},\{6,7\}\}|\[4,2\]<=\[8\]"
    r"|mesh\['axis_0'=4,'axis_1'=2[^]]*\] \{'axis_1'\}"
    r"|mesh\['trial'=4,'data'=2\] \{'data'\}"
    r"|mesh\['axis_0'=2,'axis_1'=4\], device_ids=\(\[4,2\]T\(1,0\)\) \{'axis_0'\}"
)


def test_no_device_waits_for_another_trial(tmp_path):
    """The compiled step: no collective over `trial`; over `data`, pairs of devices."""
    program = f"""
import jax, jax.numpy as jnp
from training import tiny
from vpt_jax import parallel
from vpt_jax.training import step
setup = tiny.make_setup()
for trials in (8, 4):
    mesh = parallel.make_mesh(trials, setup.batch_size)
    assert dict(mesh.shape) == {{"trial": trials, "data": 8 // trials}}
    hyper = tiny.make_hyper([0.1] * trials, [0.0] * trials, list(range(trials)))
    hyper = jax.device_put(hyper, parallel.over_trials(mesh))
    copies = parallel.replicated(mesh)
    images, labels = jax.device_put(tiny.make_data(), copies)
    frozen = jax.device_put(setup.parts[2], copies)
    state = step.make_init(setup, mesh)(setup.pretrained.params, hyper)
    arguments = state, frozen, images, labels, hyper, jnp.int32(0), jnp.int32(9)
    program = step.compile_chunk(setup, mesh, "all", *arguments)
    open({str(tmp_path)!r} + f"/{{trials}}.hlo", "w").write(program.as_text())
"""
    run_with_devices(program, 8)
    collective = re.compile(
        r" (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)"
        r"(?:-start)?\(.*"
    )
    apart = (tmp_path / "8.hlo").read_text()
    assert "while" in apart and not collective.findall(apart)
    both = collective.findall((tmp_path / "4.hlo").read_text())
    assert both
    for line in both:
        assert PAIRS.search(line), line


def test_two_processes_equal_one(tmp_path):
    """Over loopback; the trials of one process each, then the batch of one trial."""
    program = f"""
import jax, numpy as np
from training import tiny
from vpt_jax import parallel
parallel.join()
assert (jax.process_count(), jax.device_count()) == (2, 2)
for trials in (2, 1):
    hyper = tiny.make_hyper([0.1] * trials, [1e-3] * trials, list(range(trials)))
    state = tiny.run(tiny.make_setup(), hyper, [9])
    if jax.process_index() == 0:
        np.savez({str(tmp_path)!r} + f"/{{trials}}.npz", *jax.tree.leaves(state))
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    both = [
        start_with_devices(program, 1, where | {"JAX_PROCESS_ID": str(n)})
        for n in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    for trials in (2, 1):
        seeds = list(range(trials))
        hyper = tiny.make_hyper([0.1] * trials, [1e-3] * trials, seeds)
        one = jax.tree.leaves(tiny.run(tiny.make_setup(), hyper, [9]))
        with np.load(tmp_path / f"{trials}.npz") as file:
            for name, leaf in zip(file.files, one, strict=True):
                np.testing.assert_allclose(file[name], leaf, rtol=0, atol=1e-5)


def test_a_step_traces_once(monkeypatch):
    setup, calls = tiny.make_setup(), []
    original = losses.cross_entropy
    monkeypatch.setattr(
        losses, "cross_entropy", lambda *a: calls.append(1) or original(*a)
    )
    tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [1, 2, 9])
    assert len(calls) == 1
