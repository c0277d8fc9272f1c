"""cuDNN's attention: what a GPU's program calls, and what is put around it."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AxisType
from training import tiny

from vpt_jax import parallel
from vpt_jax.backbones import gpu_attention, kernels, layers
from vpt_jax.planning import compiled

RNG = np.random.default_rng(0)
FORWARD, BACKWARD = "@__cudnn$fmhaSoftmax(", "@__cudnn$fmhaSoftmaxBackward("


@pytest.fixture
def plugin(monkeypatch):
    """JAX's plugin for CUDA, as far as tracing and lowering need it; the mesh is one of
    CPUs, so that lowering alone chooses the form."""
    monkeypatch.setattr(kernels, "by_platform", jax.lax.platform_dependent)
    known = types.SimpleNamespace(cudnn_get_version=lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", known)
    gpu_attention._installed.cache_clear()
    yield
    gpu_attention._installed.cache_clear()


def lowered(traced):
    """The text of a program for a GPU that is not there."""
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def calls(trials=1, length=2, dtype=jnp.bfloat16, depth=3, **changes):
    """Of cuDNN in the training steps of a ViT, forwards and backwards, on a GPU.

    The blocks see 5 + `length` tokens; of the last one only some attend.
    """
    shape = dataclasses.replace(tiny.CONFIG, width=16, depth=depth)
    setup = tiny.make_setup("prompt", {"length": length}, dtype, shape, **changes)
    mesh, place = parallel.make_mesh(trials, setup.batch_size), "images on the device"
    fed = jax.eval_shape(tiny.make_data)
    arguments = compiled.chunk_arguments(setup, mesh, place, fed, trials)
    text = lowered(compiled.chunk(setup, mesh, place, *arguments))
    return text.count(FORWARD), text.count(BACKWARD)


@pytest.mark.parametrize(("trials", "length"), [(1, 2), (1, 3), (2, 2)])
def test_a_gpu_trains_by_cudnn(plugin, trials, length):
    """Each block whose tokens all attend, whether odd or even in number."""
    assert calls(trials, length) == (2, 2)


def test_blocks_as_a_loop(plugin):
    """The first, and one for the two that follow."""
    assert calls(depth=4, scan=True) == (2, 2)


def test_float32_does_without(plugin):
    assert calls(dtype=jnp.float32) == (0, 0)


def test_without_the_plugin_nothing_is_asked_of_it(plugin, monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", None)
    assert calls() == (0, 0)


def test_each_device_attends_for_its_own_images(plugin):
    """Also under `vmap`: two of four images of one of two trials, of 7 + 1 tokens."""
    sizes, names = (2, 2), ("trial", "data")
    mesh = jax.sharding.AbstractMesh(sizes, names, axis_types=(AxisType.Auto,) * 2)

    def loss(scale, x):
        return layers.attend(scale * x, x, x).astype(jnp.float32).sum()

    of_trials = jax.vmap(jax.grad(loss), (0, None), spmd_axis_name="trial")
    shapes = (jax.ShapeDtypeStruct(n, jnp.bfloat16) for n in ((2,), (4, 7, 2, 8)))
    with jax.sharding.use_abstract_mesh(mesh):
        text = lowered(jax.jit(of_trials).trace(*shapes))
    [call] = re.findall(r"@__cudnn\$fmhaSoftmax\(.*", text)
    assert "(tensor<2x8x2x8xbf16>, " in call
    assert text.count(BACKWARD) == 1 and "CustomSPMDPartitioning" not in text


@pytest.mark.parametrize(
    ("width", "asking", "dtype", "fits"),
    [
        (128, 7, jnp.bfloat16, True),
        (8, 7, jnp.float16, True),
        (136, 7, jnp.bfloat16, False),
        (12, 7, jnp.bfloat16, False),
        (8, 1, jnp.bfloat16, False),
    ],
)
def test_what_cudnn_has_a_kernel_for(plugin, width, asking, dtype, fits):
    query, key = (jnp.zeros((2, tokens, 2, width), dtype) for tokens in (asking, 7))
    assert gpu_attention.fits(query, key) == fits


@pytest.mark.parametrize("tokens", [6, 7])
@pytest.mark.parametrize("trials", [False, True])
def test_values_and_gradients_are_those_of_the_formula(monkeypatch, tokens, trials):
    """With XLA, told the same lengths, in the place of cuDNN."""
    asked, attention = [], jax.nn.dot_product_attention

    def fake(query, key, value, *, implementation, **lengths):
        asked.append((implementation, query.shape[1], {*map(type, lengths.values())}))
        return attention(query, key, value, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", fake)
    q, k, v, dout = RNG.normal(size=(4, 2, tokens, 2, 8)).astype(np.float32)
    own, plain = gpu_attention.attend, layers._attend
    if trials:
        q, dout = np.stack([q, 2 * q]), np.stack([dout, dout])
        own, plain = (jax.vmap(f, (0, None, None)) for f in (own, plain))

    @functools.partial(jax.jit, static_argnums=0)
    def both(attend, q, k, v, dout):
        out, pull = jax.vjp(attend, q, k, v)
        return out, *pull(dout)

    found, wanted = both(own, q, k, v, dout), both(plain, q, k, v, dout)
    [(implementation, padded, lengths)] = asked
    assert implementation == "cudnn" and padded % 2 == 0
    assert (lengths == {type(None)}) == (tokens % 2 == 0)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6)
