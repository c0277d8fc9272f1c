"""Heads on the tokens behind blocks: what they read, and how large they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import backbones, checkpoints, methods
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.network import Network
from vpt_jax.objectives import heads, segmentation
from vpt_jax.types import count, flatten

SHAPE = ViTConfig(patch=4, width=8, depth=4, heads=2, mlp_dim=16, image_size=16)
PATCHES = SHAPE.grid**2


def tiny_model(method="linear", head="pup", options=None):
    backbone = backbones.FAMILIES[ViTConfig](SHAPE, rngs=nnx.Rngs(0))
    rngs, chosen = nnx.Rngs(1), methods.choose(method, options or {})
    on_top = heads.HEADS[head](8, 3, rngs)
    return methods.build(backbone, on_top, chosen, rngs), chosen


@pytest.fixture(autouse=True)
def narrow(request, monkeypatch):
    """Decoders of 8 channels, where they are not counted."""
    if "counts" not in request.node.name:
        monkeypatch.setattr(heads, "CHANNELS", 8)


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


@pytest.mark.parametrize(("method", "scan"), [("linear", True), ("vpt_deep", False)])
def test_a_head_reads_patches_behind_its_blocks(method, scan):
    """As a plain loop over blocks, whatever tokens a method has added."""
    model, _ = tiny_model(method, options={"length": 3} if method != "linear" else {})
    model.scan = scan
    assert model.taps == (1, 2, 3, 3)  # 10, 15, 20 and 24 of 24 blocks
    x, wanted = model.backbone.embed(IMAGES), []
    for n, block in enumerate(model.backbone.blocks):
        if method == "vpt_deep":
            kept = x[:, -PATCHES:]
            prompt = model.edits["prompt"].prompts.tokens[n][...]
            prompt = jnp.broadcast_to(prompt, (2, *prompt.shape))
            x = jnp.concatenate([x[:, :1], prompt, kept], axis=1)
        x = block(x)
        wanted += model.taps.count(n) * [x[:, -PATCHES:]]
    seen = []
    model.head = lambda tapped, **rest: seen.extend(tapped)
    model(IMAGES)
    assert len(seen) == 4
    for found, x in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(found, x, atol=1e-5)


def test_auxiliary_heads_are_there_while_training_only():
    model, _ = tiny_model()
    training = model(IMAGES, train=True)
    assert training.main.shape == (2, 32, 32, 3)  # 8 times the grid of 4
    assert [x.shape for x in training.auxiliary] == [(2, 16, 16, 3)] * 3
    assert model(IMAGES).auxiliary == ()
    alone, _ = tiny_model(head="pup_alone")
    assert alone.taps == (3,) and alone(IMAGES, train=True).auxiliary == ()


@pytest.mark.parametrize(
    "method",
    ["linear", "vpt_shallow", "bias", "lora-2", "adapter-2", "ssf", "partial-1"],
)
def test_what_a_head_does_not_read_is_frozen_and_its_statistics_follow(method):
    model, chosen = tiny_model(method, "linear")
    _, trainable, frozen, stats = methods.split(model, chosen)
    assert set(flatten(stats)) == {("head", "norm", "mean"), ("head", "norm", "var")}
    assert not [p for p in flatten(trainable) if p[:2] == ("backbone", "norm")]
    assert [p for p in flatten(frozen) if p[:2] == ("backbone", "norm")]
    assert ("head", "classes", "kernel") in flatten(trainable)


@pytest.mark.parametrize("head", ["pup", "linear"])
def test_every_trained_tensor_of_a_head_learns(head):
    model, chosen = tiny_model("linear", head)
    graphdef, trainable, frozen, stats = methods.split(model, chosen)
    targets = jnp.asarray(np.random.default_rng(1).integers(0, 3, (2, 16, 16)))

    def loss(trainable):
        whole = nnx.merge(graphdef, trainable, frozen, stats)
        outputs = whole(IMAGES, train=True)
        return segmentation.loss(outputs, targets, jnp.ones(2))[0]

    for path, gradient in flatten(jax.jit(jax.grad(loss))(trainable)).items():
        assert np.abs(gradient).max() > 0, path


def test_products_are_the_convolution():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
    found = heads._products(x, kernel), heads._convolution(x, kernel)
    np.testing.assert_allclose(*found, atol=1e-5)


ROWS = {
    "linear": ({}, 13_143_640),
    "bias": ({}, 13_415_000),
    "vpt_deep": ({"length": 10}, 13_389_400),
    "vpt_deep+bias": ({"length": 100}, 15_872_600),
    "full": ({}, 317_291_096),
}
"""The rows of the paper's Table 3, counted; it prints 13.18, 13.46, 13.43, 15.79 and
318.31 million."""


@pytest.mark.parametrize("method", ROWS)
def test_counts_of_table_3(method):
    options, wanted = ROWS[method]
    pretrained = checkpoints.abstract(
        *("vit_l16", 512), dtype="float32", frozen_dtype="float32", trained=None
    )
    network = Network(
        pretrained=pretrained,
        method=methods.choose(method, options),
        objective=segmentation,
        num_classes=150,
        image_size=512,
        preset=preprocess.PRESETS["vpt"],
        head="pup",
    )
    _, trainable, _, _ = network.parts
    assert count(trainable) == wanted
    assert count(trainable["head"]) == 13_143_640
    served = dataclasses.replace(network, method=methods.choose("linear", {})).served
    assert count(served.parts[1]) == 4_171_414  # without the auxiliary heads


def test_methods_that_leave_no_tokens_are_refused():
    for method, options, why in (
        ("mlp-3", {}, "reads one feature"),
        ("sidetune", {}, "mixed"),
        ("prompt_pad", {}, "none of the image"),
        ("vpt_deep", {"pool": "image"}, "pool"),
        ("vpt_deep", {"overwrite": True, "layers": -1}, "overwrite"),
        ("vpt_deep", {"init": "cls"}, "CLS tokens"),
    ):
        with pytest.raises(UserError, match=why):
            methods.check_dense(methods.choose(method, options))
