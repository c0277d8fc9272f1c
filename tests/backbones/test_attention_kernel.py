"""The kernels for TPU, interpreted, against the formulas they stand for."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.backbones import kernels, swin, tpu_attention

RNG = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("interpreted")


@jax.custom_vjp
def kernel(query, key, value):
    return tpu_attention.forward(query, key, value)[0]


kernel.defvjp(tpu_attention.forward, tpu_attention.backward)


def plain(query, key, value):
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key) * query.shape[-1] ** -0.5
    return jnp.einsum("bhnm,bmhk->bnhk", jax.nn.softmax(scores), value)


def qkv(*shape, asking=None):
    q, k, v = RNG.normal(size=(3, *shape)).astype(np.float32)
    return jnp.asarray(q[:, :asking]), jnp.asarray(k), jnp.asarray(v)


def check(found, wanted, inputs, atol=2e-6):
    """Values and gradients are those of the formula."""
    found, pull = jax.vjp(found, *inputs)
    wanted, plain_pull = jax.vjp(wanted, *inputs)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    out = jnp.asarray(RNG.normal(size=wanted.shape), wanted.dtype)
    for a, b in zip(pull(out), plain_pull(out), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5 * atol)


@pytest.mark.parametrize(
    ("tokens", "heads", "width"),
    [(2, 3, 32), (50, 2, 80), (197, 1, 88), (247, 2, 64), (450, 1, 32)],
)
def test_values_and_gradients_are_those_of_the_formula(tokens, heads, width):
    check(kernel, plain, qkv(2, tokens, heads, width))


def test_few_ask_all():
    check(kernel, plain, qkv(2, 13, 2, 32, asking=3))


def test_trials_that_differ_in_one_of_the_three():
    q, k, v = qkv(2, 13, 2, 32)
    axes = (0, None, None)
    inputs = (jnp.stack([q, -q, q / 2]), k, v)
    check(jax.vmap(kernel, axes), jax.vmap(plain, axes), inputs)


def test_large_scores_do_not_overflow():
    q, k, v = qkv(1, 9, 1, 32)
    check(kernel, plain, (300 * q, k, v), atol=2e-4)


def test_bfloat16_is_within_its_rounding():
    inputs = tuple(x.astype(jnp.bfloat16) for x in qkv(2, 61, 2, 64))
    wanted = plain(*(x.astype(jnp.float32) for x in inputs))
    found = kernel(*inputs)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.02)


def test_heads_are_divided_where_an_image_does_not_fit(monkeypatch):
    inputs = qkv(1, 33, 6, 32)
    monkeypatch.setattr(kernels, "BLOCKS", 40_000)
    check(kernel, plain, inputs)


@pytest.mark.parametrize(
    ("windows", "batch"), [(1, 3), (2, 3), pytest.param(8, 1, marks=pytest.mark.slow)]
)
def test_windows_with_a_bias(windows, batch):
    """Also its gradient, and several windows in one program."""
    inputs = (x[:, None] for x in qkv(batch * windows, 7, 2, 32))
    inputs = (x.reshape(batch, windows, *x.shape[2:]) for x in inputs)
    bias = jnp.asarray(RNG.normal(size=(1, windows, 2, 7, 7)), jnp.float32)
    check(swin._attend_by_kernel, swin._attend, (*inputs, bias))


@pytest.mark.parametrize(
    ("images", "few", "heads", "size", "wanted"),
    [(64, 12, 12, 1, 1), (64, 4, 4, 1, 4), (6, 4, 4, 1, 3), (8, 2, 4, 1, 1)]
    + [(8, 4, 4, 2**22, 1), (8, 4, 4, 2**30, 1)],
)
def test_images_at_once(images, few, heads, size, wanted):
    """As many as divide them, where each has all heads and there is room."""
    assert tpu_attention._images_at_once(images, few, heads, size) == wanted


@pytest.mark.parametrize(
    ("heads", "width", "size", "wanted"),
    [
        (12, 768, 1, 12),
        (12, 768, 14 * 2**20, 6),
        (3, 24, 2**30, 3),
        (16, 1280, 2**30, 1),
    ],
)
def test_heads_at_once(heads, width, size, wanted):
    """Groups are alike, of whole tiles of 16 rows or of all heads."""
    assert tpu_attention._heads_at_once(heads, width, size) == wanted


@pytest.mark.slow
def test_each_device_attends_to_its_own_trials_and_images():
    """And normalises them: 2 x 2 devices talk to each other about nothing."""
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "backbones.kernels_on_devices"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert found.pop("gap") < 1e-6
    assert found == {"shards": [[1, 2], [1, 2]], "collectives": []}
