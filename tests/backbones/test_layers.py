"""BatchNorm as PyTorch computes it, written out in NumPy; gradients written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import parallel
from vpt_jax.backbones import layers
from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.training import programs

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(2.0, 3.0, (5, 2, 3, 4)), jnp.float32)


def norm():
    layer = BatchNorm(4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for variable in (layer.scale, layer.bias, layer.mean, layer.var):
        variable[...] = jnp.asarray(RNG.uniform(0.5, 2.0, 4), jnp.float32)
    return layer


def statistics(layer):
    return np.asarray(layer.mean[...]), np.asarray(layer.var[...])


def expected(layer, x, mean, var):
    scale, bias = np.asarray(layer.scale[...]), np.asarray(layer.bias[...])
    return (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize(("use_batch", "train"), [(False, True), (True, False)])
def test_running_statistics_are_used_and_kept(use_batch, train):
    layer = norm()
    layer.use_batch = use_batch
    mean, var = statistics(layer)
    y = layer(X, train=train)
    np.testing.assert_allclose(y, expected(layer, X, mean, var), atol=1e-5)
    np.testing.assert_array_equal(statistics(layer), (mean, var))


@pytest.mark.parametrize("x", [X, X[:, 0, 0]])
def test_batch_statistics(x):
    layer = norm()
    layer.use_batch = True
    old_mean, old_var = statistics(layer)
    y = layer(x, train=True)
    flat = np.asarray(x).reshape(-1, 4)
    wanted = expected(layer, x, flat.mean(0), flat.var(0))
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    mean, var = statistics(layer)
    np.testing.assert_allclose(mean, 0.9 * old_mean + 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, 0.9 * old_var + 0.1 * flat.var(0, ddof=1), 1e-5)


def test_rows_that_fill_up_a_batch_do_not_count():
    whole, padded = norm(), norm()
    nnx.update(padded, nnx.state(whole))
    whole.use_batch = padded.use_batch = True
    wanted = whole(X[:3], train=True)
    found = padded(X, mask=jnp.array([1.0, 1, 1, 0, 0]), train=True)
    np.testing.assert_allclose(found[:3], wanted, atol=1e-5)
    np.testing.assert_allclose(statistics(padded), statistics(whole), rtol=1e-6)


def test_statistics_are_no_parameters_and_bfloat16_stays_outside():
    layer = BatchNorm(4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert set(nnx.as_pure(nnx.state(layer, nnx.Param))) == {"scale", "bias"}
    assert set(nnx.as_pure(nnx.state(layer, nnx.BatchStat))) == {"mean", "var"}
    assert layer(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    layer.use_batch = True
    layer(X.astype(jnp.bfloat16), train=True)
    assert layer.mean[...].dtype == jnp.float32


# ---- gradients written out

Q, K, V = RNG.normal(size=(3, 2, 7, 2, 8))
IMAGES, KERNEL = RNG.normal(size=(2, 5, 7, 3)), RNG.normal(size=(2, 3, 3, 8))
ROWS, SCALE, SHIFT = RNG.normal(size=(2, 5, 8)), *RNG.normal(size=(2, 8))


def plain_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    scale, bias = scale[None, None], bias[None, None]
    return (x - mean) / jnp.sqrt(var + 1e-6) * scale + bias


def plain_attention(query, key, value):
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key) / np.sqrt(8)
    return jnp.einsum("bhnm,bmhk->bnhk", jax.nn.softmax(scores), value)


def normalise(x, scale, bias):
    return layers._normalise(x, scale, bias, 1e-6, x.dtype)


def convolved_by(layer, images, kernel, bias):
    """5 x 7 pixels in patches of 2 x 3: a row and a column are left over."""
    shape = 3, 8, kernel.shape[:2], kernel.shape[:2]
    dtypes = {"dtype": images.dtype, "param_dtype": images.dtype}
    made = layer(*shape, padding="VALID", **dtypes, rngs=nnx.Rngs(0))
    made.kernel[...], made.bias[...] = kernel, bias
    return made(images)


OWN = {
    "patches": (
        functools.partial(convolved_by, layers.PatchEmbed),
        functools.partial(convolved_by, nnx.Conv),
        (IMAGES, KERNEL, SHIFT),
    ),
    "norm": (normalise, plain_norm, (ROWS, SCALE, SHIFT)),
    "attention": (layers.attend, plain_attention, (Q, K, V)),
    "few ask": (layers.attend, plain_attention, (Q[:, :1], K, V)),
    "gelu": (layers.gelu, lambda x: jax.nn.gelu(x, approximate=False), (ROWS,)),
}


@pytest.mark.parametrize("trials", [False, True])
@pytest.mark.parametrize("name", OWN)
@jax.enable_x64(True)
def test_values_and_gradients_are_those_of_the_formula(name, trials):
    own, plain, inputs = OWN[name]
    if trials:  # the first input differs between them, the others do not
        inputs = (np.stack([inputs[0], 2 * inputs[0]]), *inputs[1:])
        axes = (0, *(None,) * (len(inputs) - 1))
        own, plain = jax.vmap(own, axes), jax.vmap(plain, axes)
    found, pull = jax.vjp(own, *map(jnp.asarray, inputs))
    wanted, plain_pull = jax.vjp(plain, *map(jnp.asarray, inputs))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    out = jnp.asarray(RNG.normal(size=wanted.shape))
    for a, b in zip(pull(out), plain_pull(out), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_no_attention_weights_are_kept():
    query, key, value = RNG.normal(size=(3, 1, 100, 1, 2))
    _, pull = jax.vjp(layers.attend, *map(jnp.float32, (query, key, value)))
    assert max(x.size for x in jax.tree.leaves(pull)) == 100 * 2
    _, plain_pull = jax.vjp(plain_attention, *map(jnp.float32, (query, key, value)))
    assert max(x.size for x in jax.tree.leaves(plain_pull)) == 100 * 100


def test_what_is_computed_again_is_not_kept_by_xla_either():
    """Six layers need the weights of a few at a time; a layer has 96 x 96."""
    x = jax.ShapeDtypeStruct((1, 96, 1, 4), jnp.float32)

    def loss(x):
        for _ in range(6):
            x = layers.attend(x, x, x)
        return x.sum()

    options = programs.compiler_options(parallel.make_mesh(1, 1))
    program = jax.jit(jax.grad(loss), compiler_options=options).lower(x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 5 * 96 * 96 * 4
