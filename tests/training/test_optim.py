"""Schedule and optimizers against hand-written steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.training import optim
from vpt_jax.types import flatten


def test_schedule_is_the_public_one():
    epochs = jnp.arange(100)
    found = optim.lr_multiplier(epochs, epochs=100, warmup_epochs=10)
    np.testing.assert_allclose(found[:11], np.arange(11) / 10, atol=1e-6)
    np.testing.assert_allclose(found[11], 0.9997, atol=5e-5)
    np.testing.assert_allclose(found[99], 0.0003, atol=5e-5)


def test_schedule_without_warmup_starts_at_the_peak():
    assert optim.lr_multiplier(0, epochs=1, warmup_epochs=0) == 1


def test_poly_ends_at_an_absolute_minimum():
    """mmsegmentation: (1 - t / T)^0.9, evaluated at every step."""
    schedule = optim.make_schedule(
        "poly", steps_per_epoch=4, epochs=10, warmup_epochs=0, min_lr=1e-4
    )
    steps = np.arange(40)
    for peak in (1e-2, 1e-3):
        wanted = (peak - 1e-4) * (1 - steps / 40) ** 0.9 + 1e-4
        found = [schedule(peak, n) for n in steps]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert schedule(5e-5, 0) == pytest.approx(5e-5)  # is below it already
    assert schedule(5e-5, 39) == pytest.approx(5e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_head_may_have_a_rate_of_its_own(name):
    make = optim.make_optimizer(name, 0.9)
    params = {"head": jnp.array([1.0, 2.0]), "edits": jnp.array([1.0, 2.0])}
    grads = jax.tree.map(lambda x: 0.5 * x, params)
    state = make(0.1, 0.0).init(params)
    same, _ = make(0.1, 0.0, 0.1).update(grads, state, params)
    found, _ = make(0.1, 0.0, 1.0).update(grads, state, params)
    alone, after = make(0.1, 0.0).update(grads, state, params)
    np.testing.assert_allclose(found["head"], 10 * alone["head"], rtol=1e-6)
    np.testing.assert_array_equal(found["edits"], alone["edits"])
    np.testing.assert_array_equal(same["head"], alone["head"])
    assert jax.tree.structure(after) == jax.tree.structure(state)


PARAMS = {"head": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}}
GRADS = [
    {"head": {"kernel": jnp.array([0.1, 0.2]), "bias": jnp.array([0.3])}},
    {"head": {"kernel": jnp.array([-0.4, 0.1]), "bias": jnp.array([0.2])}},
]


def run(name, lr=0.1, weight_decay=0.01):
    make = optim.make_optimizer(name, 0.9, {("head", "bias")})
    params, state = PARAMS, make(lr, weight_decay).init(PARAMS)
    for grads in GRADS:
        updates, state = make(lr, weight_decay).update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params["head"]


def test_sgd_couples_decay_before_momentum_and_spares_the_last_bias():
    weight, bias = np.array([1.0, -2.0]), np.array([0.5])
    moved = [np.zeros(2), np.zeros(1)]
    for grads in GRADS:
        moved[0] = 0.9 * moved[0] + np.asarray(grads["head"]["kernel"]) + 0.01 * weight
        moved[1] = 0.9 * moved[1] + np.asarray(grads["head"]["bias"])
        weight, bias = weight - 0.1 * moved[0], bias - 0.1 * moved[1]
    found = run("sgd")
    np.testing.assert_allclose(found["kernel"], weight, atol=1e-6)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.3, 0.0001])
def test_public_adamw_ignores_the_decay_and_applies_it_after_the_step(weight_decay):
    weight, bias = np.array([1.0, -2.0]), np.array([0.5])
    m, v = [np.zeros(2), np.zeros(1)], [np.zeros(2), np.zeros(1)]
    for t, grads in enumerate(GRADS, start=1):
        values = [weight, bias]
        for n, name in enumerate(("kernel", "bias")):
            g = np.asarray(grads["head"][name])
            m[n] = 0.9 * m[n] + 0.1 * g
            v[n] = 0.999 * v[n] + 0.001 * g**2
            size = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            values[n] = values[n] - size * m[n] / (np.sqrt(v[n]) + 1e-6)
        weight, bias = values[0] * (1 - 0.1 * 0.01), values[1]
    found = run("adamw_public", weight_decay=weight_decay)
    np.testing.assert_allclose(found["kernel"], weight, atol=1e-5)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-5)


def test_adamw_honours_the_decay():
    small = run("adamw", weight_decay=0.0)
    large = run("adamw", weight_decay=0.5)
    assert not np.allclose(small["kernel"], large["kernel"])
    np.testing.assert_array_equal(small["bias"], large["bias"])


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("sgd", [("head", "bias")]),
        ("adamw", [("head", "bias"), ("norm", "bias"), ("norm", "scale")]),
        ("adamw_public", [("head", "bias"), ("norm", "bias")]),
    ],
)
def test_what_decays(name, kept):
    """Without a gradient only decay moves a tensor."""
    params = {"head": dict.fromkeys(("kernel", "bias"), jnp.ones(2))}
    params["norm"] = dict.fromkeys(("scale", "bias"), jnp.ones(2))
    optimizer = optim.make_optimizer(name, 0.9, {("head", "bias")})(0.1, 0.01)
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    found = [path for path, x in flatten(updates).items() if not np.any(x)]
    assert found == kept
