"""Which form of a computation a program holds."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vpt_jax import parallel
from vpt_jax.backbones import kernels

MESH = parallel.make_mesh(1, 1, jax.devices()[:1])
CPU = MESH.abstract_mesh


def on(platform):
    """The mesh of such a device."""
    device = jax.sharding.AbstractDevice("some", None, platform)
    return CPU.update(abstract_device=device)


def traced(run):
    """The names of the forms that `run` traces."""
    seen = []

    def form(name):
        def call(x):
            seen.append(name)
            return x

        return call

    forms = {name: form(name) for name in ("default", "tpu", "cuda")}
    jax.make_jaxpr(lambda x: run(x, **forms))(1.0)
    return sorted(seen)


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("cpu", ["default"]),
        ("tpu", ["tpu"]),
        ("gpu", ["cuda", "default", "tpu"]),  # CUDA or ROCm: known when it is lowered
    ],
)
def test_a_mesh_traces_the_forms_of_its_devices(platform, wanted):
    with jax.sharding.use_abstract_mesh(on(platform)):
        assert traced(kernels.by_platform) == wanted


def test_a_program_for_no_mesh_traces_all():
    assert traced(kernels.by_platform) == ["cuda", "default", "tpu"]


def test_a_program_for_no_mesh_chooses_when_lowered():
    def run(x):
        forms = {"tpu": jnp.sin, "default": jnp.cos}
        return kernels.by_platform(x, **forms)

    lower = jax.jit(run).trace(1.0).lower
    texts = [lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")]
    assert ["stablehlo.sine" in text for text in texts] == [False, True]


def test_what_is_made_for_a_mesh_knows_it():
    def run(x, **forms):
        chosen = functools.partial(kernels.by_platform, **forms)
        return parallel.traced_on(MESH, chosen)(x)

    assert traced(run) == ["default"]
