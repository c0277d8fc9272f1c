"""The programs of training, compiled for TPUs that are not there.

`pip install -r requirements-tpu.txt && python -m pytest -m tpu`: libtpu compiles on any
Linux machine. What is checked is the compiled text: that it compiles at all, and who
talks to whom.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_families import FAMILIES, REFUSED

from vpt_jax import backbones, methods, parallel
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data import preprocess
from vpt_jax.network import Network
from vpt_jax.objectives import classification
from vpt_jax.planning import compiled, hlo
from vpt_jax.planning.topology import devices
from vpt_jax.training import inputs
from vpt_jax.training.setup import Setup

pytestmark = [pytest.mark.tpu, pytest.mark.xdist_group("tpu")]
OPTIONS = {"prompt": {"length": 3}, "lora": {"rank": 2}}
METHODS = ("prompt", "linear", "full", "lora")


def make_setup(family, method, *, batch=8, shape=None, **changes):
    """A run on 16 images, with the backbone in bfloat16 and no weights of its own."""
    shape = shape or FAMILIES[family]
    graphdef, state = nnx.split(backbones.abstract(shape, jnp.bfloat16))
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), nnx.as_pure(state)
    )
    network = Network(
        pretrained=Pretrained(shape, graphdef, params, "shapes", "shapes"),
        method=methods.choose(method, OPTIONS.get(method, {})),
        objective=classification,
        num_classes=3,
        image_size=shape.image_size,
        preset=preprocess.PRESETS["inception"],
        **changes,
    )
    return Setup(
        *(network, 16, batch, 2, 1, "step"),
        optimizer="sgd",
        momentum=0.9,
        class_weights=np.ones(3, np.float32),
        cached=False,
    )


def program_of(setup, trials, on):
    """The compiled chunk of training steps."""
    size, place = setup.network.image_size, inputs.RESIDENT
    images = jax.ShapeDtypeStruct((16, size, size, 3), jnp.uint8)
    fed = images, jax.ShapeDtypeStruct((16,), jnp.int32)
    mesh = parallel.make_mesh(trials, setup.batch_size, devices(on))
    arguments = compiled.chunk_arguments(setup, mesh, place, fed, trials)
    return compiled.compile_on(mesh, compiled.chunk(setup, mesh, place, *arguments))


def text_of(setup, trials, on):
    return program_of(setup, trials, on).as_text()


PAIRS = [
    (family, method)
    for family in FAMILIES
    for method in METHODS
    if (family, method) not in REFUSED
]


@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_trials_do_not_talk(family, method):
    """Eight trials on eight chips, every kind of backbone."""
    text = text_of(make_setup(family, method), 8, "v5e:2x4")
    assert "estimated_cycles" in text  # what a TPU runs
    assert hlo.collectives(text) == []


@pytest.mark.parametrize("family", ["vit", "swin", "convnext"])
def test_a_divided_batch_sums_its_gradients_once(family):
    method = "linear" if family == "convnext" else "prompt"
    found = hlo.collectives(text_of(make_setup(family, method), 1, "v5e:2x4"))
    assert {one.kind for one in found} == {"all-reduce"}
    gradients = [one for one in found if one.bytes > 64]
    assert len(gradients) == 1, found


def test_a_step_of_a_large_batch_uses_the_kernels():
    """Attention and norms of a width that fills lanes, with an odd number of tokens."""
    wide = dataclasses.replace(FAMILIES["vit"], width=256, heads=4, mlp_dim=512)
    text = text_of(make_setup("vit", "prompt", shape=wide), 1, "v5e:1x1")
    kernels = [x for x in hlo.operations(text) if x.kind == "custom-call" and x.flops]
    assert len(kernels) >= 2 * 3 * wide.depth - 2  # forwards and backwards


def test_weights_in_parts_are_gathered_block_by_block():
    """In the loop over the blocks; never more than two of them whole at a time."""
    deep = dataclasses.replace(
        FAMILIES["vit"], width=512, heads=4, mlp_dim=2048, depth=8
    )
    setup = make_setup("vit", "prompt", shape=deep, shard=True, scan=True)
    program = program_of(setup, 1, "v5e:2x4")
    text = program.as_text()
    gathered = [one for one in hlo.collectives(text) if one.kind == "all-gather"]
    assert gathered
    block = 2 * (4 * deep.width**2 + 2 * deep.width * deep.mlp_dim)
    assert max(one.bytes for one in gathered) <= block
    # ---- those that stand outside of any loop over blocks are a block's at most
    entry = text[text.index("ENTRY") :]
    outside = hlo.collectives(entry[: entry.index("\n}")])
    assert not [one for one in outside if one.kind == "all-gather"]
    whole = deep.depth * block
    used = program.memory_analysis().temp_size_in_bytes
    plain = make_setup("vit", "prompt", shape=deep, scan=True)
    alone = program_of(plain, 1, "v5e:2x4")
    extra = used - alone.memory_analysis().temp_size_in_bytes
    assert extra <= 2.5 * block < whole, (extra, block)


def test_loops_say_how_often_they_run():
    """Two in one another, forwards and backwards, within one of unknown length."""

    def inner(x, matrix):
        return jnp.tanh(x @ matrix), x

    def outer(x, matrix):
        x, inputs = jax.lax.scan(inner, x @ matrix, jnp.stack([matrix] * 3))
        return x + inputs.sum(0), None

    def loss(x, matrices):
        return jax.lax.scan(outer, x, matrices)[0].astype(jnp.float32).sum()

    def steps(x, matrices, stop):
        def step(_, x):
            return x - jax.grad(loss)(x, matrices)

        return jax.lax.fori_loop(0, stop, step, x)

    where = jax.sharding.SingleDeviceSharding(devices("v5e:1x1")[0])
    shapes = (((256, 256), "bfloat16"), ((5, 256, 256), "bfloat16"), ((), "int32"))
    given = [jax.ShapeDtypeStruct(*shape, sharding=where) for shape in shapes]
    text = jax.jit(steps).lower(*given).compile().as_text()
    found = hlo.loops_of(text)
    assert sorted(n for n in found if n) == [3, 3, 5, 5] and found.count(None) == 1


def test_a_pod_of_trials():
    """256 trials on as many chips."""
    text = text_of(make_setup("vit", "prompt"), 256, "v5e:16x16")
    assert hlo.collectives(text) == []
    assert not re.search(r"all-(reduce|gather)", text)
