"""The kernels for TPU, interpreted, against the formula they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.backbones import tpu_norm

RNG = np.random.default_rng(0)
EPSILON = 1e-6

pytestmark = pytest.mark.usefixtures("interpreted")


def plain(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale[None, None] + bias[None, None]


def inputs(*shape, dtype=jnp.float32):
    x = jnp.asarray(RNG.normal(2.0, 3.0, shape), dtype)
    return x, *jnp.asarray(RNG.normal(size=(2, shape[-1])), jnp.float32)


def check(x, scale, bias, dy):
    found = tpu_norm.forward(x, scale, bias, EPSILON)
    wanted, pull = jax.vjp(lambda x: plain(x, scale, bias), x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6)
    dx = tpu_norm.backward(x, scale, dy, EPSILON)
    np.testing.assert_allclose(dx, *pull(dy), rtol=0, atol=3e-6)


@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 7, 96), (2, 247, 64), (5, 33, 1280)])
def test_values_and_gradients_are_those_of_the_formula(shape):
    check(*inputs(*shape), jnp.asarray(RNG.normal(size=shape), jnp.float32))


@pytest.mark.parametrize("block", [1, 8 * 40 * 4, 2 * 13 * 40 * 4])
def test_blocks_that_do_not_divide_the_rows(monkeypatch, block):
    monkeypatch.setattr(tpu_norm, "BLOCK", block)
    shape = 3, 13, 40
    check(*inputs(*shape), jnp.asarray(RNG.normal(size=shape), jnp.float32))


def test_trials_that_share_the_weights():
    x, scale, bias = inputs(2, 5, 32)
    many = jnp.stack([x, 2 * x, 3 * x])
    run = jax.vmap(lambda x: tpu_norm.forward(x, scale, bias, EPSILON))
    for one, found in zip(many, run(many), strict=True):
        np.testing.assert_allclose(found, plain(one, scale, bias), rtol=0, atol=3e-6)


def test_bfloat16_is_rounded_once():
    x, scale, bias = inputs(2, 5, 32, dtype=jnp.bfloat16)
    found = tpu_norm.forward(x, scale, bias, EPSILON)
    wanted = plain(x.astype(jnp.float32), scale, bias).astype(jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(y.astype(jnp.float32) for y in (found, wanted)), 0.01)
