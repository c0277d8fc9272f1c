"""Outputs of the frozen first blocks: cached on the device, on the host, or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import tiny

from vpt_jax import parallel
from vpt_jax.data.examples import Examples
from vpt_jax.training import inputs, loop
from vpt_jax.training.inputs import Limits
from vpt_jax.training.state import Checkpoints

NOTHING = Limits(0, 0)
HOST = Limits(0, 1e9)


def examples():
    images, labels = map(np.asarray, tiny.make_data())
    return Examples.from_images(list(images), labels, list(map(str, labels)))


def train(setup, limits, folder):
    hyper = tiny.make_hyper([0.1, 0.02], [1e-3, 0.0], [3, 4])
    mesh = parallel.make_mesh(2, setup.batch_size)
    ignore = lambda *_: None  # noqa: E731
    place = inputs.decide(setup, limits, examples())
    return loop.train(
        *(
            setup,
            mesh,
            hyper,
            examples(),
            None,
            0,
            place,
            Checkpoints(folder, lambda: None),
        ),
        *(ignore, ignore, ignore),
    ).state.trainable


def assert_close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("method", "cut", "shape"),
    [
        ("linear", 4, (8,)),
        ("mlp-2", 4, (8,)),
        ("partial-1", 2, (5, 8)),
        ("partial-2", 0, ()),
        ("prompt", 0, ()),
    ],
)
def test_the_cut_follows_from_the_split(method, cut, shape):
    setup = tiny.make_setup(method)
    assert setup.cut == cut
    if cut:
        size = 4 * tiny.NUM_EXAMPLES * int(np.prod(shape))
        assert inputs.cache_bytes(setup) == size


def test_the_cut_of_prompts_in_the_last_blocks():
    assert tiny.make_setup("prompt", {"layers": -1}).cut == 2
    options = {"layers": -1, "overwrite": True, "length": 2}
    assert tiny.make_setup("prompt", options).cut == 2


@pytest.mark.parametrize("method", ["linear", "partial-1", "prompt"])
def test_every_place_gives_the_same_training(method, tmp_path, capsys):
    options = {"layers": -1, "length": 2} if method == "prompt" else {}
    setup = tiny.make_setup(method, options)
    cached = train(setup, Limits(), tmp_path / "device")
    assert capsys.readouterr().err == ""
    spilled = train(setup, HOST, tmp_path / "host")
    assert "kept on the host" in capsys.readouterr().err
    plain = train(setup, NOTHING, tmp_path / "none")
    assert "run again in every step" in capsys.readouterr().err
    assert_close(spilled, cached, 1e-6)
    assert_close(plain, cached, 1e-5)


@pytest.mark.parametrize("method", ["partial-1", "mlp-2"])
def test_the_places_agree_in_float64(method, tmp_path):
    """BatchNorm over the two rows of a last batch magnifies rounding in float32."""
    with jax.enable_x64(True):
        setup = tiny.make_setup(method, dtype=jnp.float64)
        cached = train(setup, Limits(), tmp_path / "device")
        plain = train(setup, NOTHING, tmp_path / "none")
        assert_close(plain, cached, 1e-8)


def test_limits_are_half_of_what_is_free():
    assert Limits(3.0, 5.0).device_bytes() == 3.0
    assert Limits(3.0, 5.0).host_bytes() == 5.0
    assert 0 < Limits().host_bytes() < 1e13
    assert 0 < Limits().device_bytes() < 1e13
