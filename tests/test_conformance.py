"""One table that every method passes on every ViT, as optimizers have theirs in optax.

Golden lists: tests/golden/trained.json holds the trained names and counts of each case
on the small ViT below; `python -m tests.test_conformance` writes it anew.
"""

import dataclasses
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from building import build_model
from flax import nnx
from product import shortened, slow

from vpt_jax import backbones, methods
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.vit import ViT, ViTConfig
from vpt_jax.model import first_trained_piece
from vpt_jax.objectives import classification
from vpt_jax.types import count, flatten, path_name

SMALL = ViTConfig(patch=4, width=8, depth=3, heads=2, mlp_dim=16, image_size=8)
LARGE = ViTConfig(patch=32, width=8, depth=3, heads=2, mlp_dim=16, image_size=64)
SHAPE = (4, 8, 3, 2, 16, 8)
ROTARY = {
    "dinov3": DINOv3Config(*SHAPE, registers=2, swiglu=True),
    "pe": PEConfig(*SHAPE, native=3),
    "eva02": EVA02Config(*SHAPE, normed=True),
}
GOLDEN = pathlib.Path(__file__).parent / "golden" / "trained.json"
CLASSES, BATCH = 5, 4

# method, options, leading steps without a trained tensor; L + 2 is all but the head
CASES = {
    "linear": ("linear", {}, 5),
    "mlp-2": ("mlp-2", {}, 5),
    "mlp-3": ("mlp-3", {}, 5),
    "full": ("full", {}, 0),
    "partial-1": ("partial-1", {}, 3),
    "partial-2": ("partial-2", {}, 2),
    "bias": ("bias", {}, 0),
    "layernorm": ("layernorm", {}, 1),
    "adapter": ("adapter-4", {}, 1),
    "adaptformer": ("adaptformer", {"bottleneck": 3}, 1),
    "lora": ("lora-2", {}, 1),
    "lora everywhere": ("lora", {"targets": "query,key,value,out,fc1,fc2"}, 1),
    "ssf": ("ssf", {}, 0),
    "sidetune": ("sidetune", {}, 0),
    "cls": ("cls", {}, 0),
    "cls-reinit": ("cls-reinit", {}, 0),
    "vpt_deep": ("vpt_deep", {"length": 2}, 1),
    "vpt_shallow": ("vpt_shallow", {"length": 2}, 1),
    "project": ("prompt", {"length": 2, "project": 4}, 1),
    "normal": ("prompt", {"length": 2, "init": "normal"}, 1),
    "first 2": ("prompt", {"length": 2, "layers": 2}, 1),
    "first 2, dropped": ("prompt", {"length": 2, "layers": 2, "keep": False}, 1),
    "last 1": ("prompt", {"length": 2, "layers": -1}, 3),
    "last 2, in place": (
        "prompt",
        {"length": 2, "layers": -2, "overwrite": True},
        2,
    ),
    "shared": ("prompt", {"length": 2, "share": "inter"}, 1),
    "shared intra": ("prompt", {"length": 2, "share": "intra"}, 1),
    "shared all": ("prompt", {"length": 2, "share": "all"}, 1),
    "untrained": ("prompt", {"length": 2, "trained": False}, 1),
    "image pool": ("prompt", {"length": 2, "pool": "image"}, 1),
    "prompt pool": ("prompt", {"length": 2, "pool": "prompt"}, 1),
    "both pool": ("prompt", {"length": 2, "pool": "image+prompt"}, 1),
    "add": ("prompt_add", {}, 1),
    "add to the last": ("prompt_add", {"layers": -1}, 3),
    "add-1": ("prompt_add", {"single": True, "deep": False}, 1),
    "pixel": ("prompt_pixel", {"length": 2}, 1),
    "pixel, imagenet": ("prompt_pixel", {"length": 2, "pixels": "imagenet"}, 1),
    "pixel, gaussian": ("prompt_pixel", {"length": 2, "pixels": "gaussian"}, 1),
    "pad": ("prompt_pad", {"padding": 2}, 0),
    "below": ("prompt_below", {"length": 2}, 0),
    "gated": ("gated", {"length": 2, "gate_init": 1.0}, 1),
    "vfpt": ("vfpt", {"length": 3}, 1),
    "prompt+bias": ("prompt+bias", {"length": 2}, 0),
    "prompt+cls": ("prompt+cls", {"length": 2}, 0),
    "untrained+bias": ("prompt+bias", {"length": 2, "trained": False}, 0),
    "prompt+adapter": ("prompt+adapter-4", {"length": 2}, 1),
    "prompt+lora": ("prompt+lora-2", {"length": 2}, 1),
    "prompt+mlp": ("prompt+mlp-2", {"length": 2}, 1),
    "adapter+gated": ("adapter-4+gated", {"length": 2, "gate_init": 1.0}, 1),
    "lora+layernorm": ("lora-2+layernorm", {}, 1),
}
USUAL = (
    *("linear", "mlp-2", "full", "partial-1", "bias", "layernorm", "adapter", "lora"),
    *("ssf", "sidetune", "cls", "vpt_deep", "vpt_shallow", "last 2, in place", "add"),
    *("pixel", "pad", "below", "gated", "vfpt", "prompt+bias", "prompt+lora"),
)
ON_ROTARY = ("vpt_deep", "last 1", "gated", "pixel", "lora", "adapter", "partial-1")
UNCHANGED_AT_START = ("adapter", "adaptformer", "lora", "lora everywhere", "layernorm")


def build(name, config=SMALL):
    method, options, _ = CASES[name]
    chosen = methods.choose(method, options)
    if name == "sidetune":
        config = LARGE
    size = methods.image_size(chosen, config.image_size)
    shape = dataclasses.replace(config, image_size=size)
    backbone = backbones.FAMILIES[type(config)](shape, rngs=nnx.Rngs(0))
    model = build_model(backbone, CLASSES, chosen)
    images = jax.random.normal(
        jax.random.key(0), (BATCH, config.image_size, config.image_size, 3)
    )
    return chosen, model, images


def trained_of(name) -> dict:
    """What the golden file holds of a case."""
    chosen, model, _ = build(name)
    _, trainable, frozen, stats = methods.split(model, chosen)
    return {
        "trained": sorted(map(path_name, flatten(trainable))),
        "stats": sorted(map(path_name, flatten(stats))),
        "trainable_params": count(trainable),
        "frozen_params": count(frozen),
    }


def test_trained_names_and_counts_equal_the_golden_lists():
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == CASES.keys()
    for name in CASES:
        assert trained_of(name) == golden[name], name


def test_every_method_has_a_case():
    used = {
        name for method, _, _ in CASES.values() for name, _ in methods.parse(method)
    }
    assert used == set(methods.METHODS)


ROTARY_CASES = [
    case if case == ("dinov3", "vpt_deep") else slow(*case)
    for case in itertools.product(ROTARY, ON_ROTARY)
]


@pytest.mark.parametrize("family, name", ROTARY_CASES)
def test_conformance_of_rotary_families(family, name):
    test_conformance(name, ROTARY[family])


@pytest.mark.parametrize("name", shortened(CASES, USUAL))
def test_conformance(name, config=SMALL):
    chosen, model, images = build(name, config)
    graphdef, trainable, frozen, stats = methods.split(model, chosen)
    labels, mask = jnp.arange(BATCH), jnp.ones(BATCH)

    # ---- the first trained step, and that the frozen prefix and the rest are the whole
    cut = CASES[name][2]
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    assert first_trained_piece(graphdef, trainable, frozen, stats, shape) == cut
    whole = model(images)
    prefix = model.prefix(images, cut)
    np.testing.assert_allclose(model.suffix(prefix, cut), whole, atol=1e-6)

    # ---- two steps: one trace, a gradient for every trained tensor, frozen bits kept
    traces = []

    @jax.jit
    def gradient(trainable, stats, key):
        traces.append(1)

        def loss(trainable):
            model = nnx.merge(graphdef, trainable, frozen, stats)
            logits = model(images, key=key, train=True, mask=mask)
            total, size = classification.loss(logits, labels, mask)
            return total / size, methods.split(model, chosen)[3]

        return jax.grad(loss, has_aux=True)(trainable)

    before = jax.tree.map(np.array, frozen)
    seen = jax.tree.map(jnp.zeros_like, trainable)
    for key in jax.random.split(jax.random.key(1), 2):
        grads, stats = gradient(trainable, stats, key)
        seen = jax.tree.map(lambda s, g: jnp.maximum(s, jnp.abs(g)), seen, grads)
        updates = jax.tree.map(lambda g: -0.1 * g, grads)
        trainable = optax.apply_updates(trainable, updates)
    assert len(traces) == 1
    for path, size in flatten(seen).items():
        # A key bias shifts all logits of a softmax alike: no gradient in exact terms.
        if "key" not in path or path[-1] != "bias":
            assert size.max() > 0, path_name(path)
    jax.tree.map(np.testing.assert_array_equal, frozen, before)


@pytest.mark.parametrize("name", UNCHANGED_AT_START)
def test_a_method_that_starts_at_zero_leaves_the_logits(name):
    _, model, images = build(name)
    backbone, linear = ViT(SMALL, rngs=nnx.Rngs(0)), methods.choose("linear", {})
    plain = build_model(backbone, CLASSES, linear)
    np.testing.assert_allclose(model(images), plain(images), rtol=0, atol=1e-6)


# ---- the paper's own counts (table 1: ViT-B/16, 24 tasks)

CLASSES_OF_24 = {
    **{"cifar100": 100, "caltech101": 102, "dtd": 47, "flowers102": 102, "pets": 37},
    **{"svhn": 10, "sun397": 397, "patch_camelyon": 2, "eurosat": 10, "resisc45": 45},
    **{"retinopathy": 5, "clevr_count": 8, "clevr_distance": 6, "dmlab": 6},
    **{"kitti_distance": 4, "dsprites_location": 16, "dsprites_orientation": 16},
    **{"smallnorb_azimuth": 18, "smallnorb_elevation": 9, "cub": 200, "nabirds": 555},
    **{"oxford_flowers": 102, "stanford_dogs": 120, "stanford_cars": 196},
}
SHALLOW = (
    *(100, 5, 1, 200, 50, 200, 1, 5, 50, 50, 10, 100, 200, 100, 100, 100, 100, 200),
    *(200, 150, 50, 150, 100, 100),
)
DEEP = (
    *(10, 10, 10, 1, 1, 50, 5, 100, 100, 10, 1, 50, 200, 100, 50, 10, 50, 200, 200),
    *(10, 50, 5, 100, 200),
)
BACKBONE = 85_798_656
RATIOS = {
    "full": 24.02,
    "linear": 1.02,
    "partial-1": 3.00,
    "mlp-3": 1.35,
    "sidetune": 3.69,
    "bias": 1.05,
    "vpt_shallow": 1.04,
    "vpt_deep": 1.18,
}


def trained_on_vit_b16(method, options, num_classes):
    chosen = methods.choose(method, options)

    def shapes():
        backbone = ViT(backbones.CONFIGS["vit_b16"], rngs=nnx.Rngs(0))
        model = build_model(backbone, num_classes, chosen)
        return methods.split(model, chosen)[1]

    return count(jax.eval_shape(shapes))


@pytest.mark.parametrize("method", RATIOS)
def test_ratios_of_the_papers_table_1(method):
    assert sum(CLASSES_OF_24.values()) == 2113
    lengths = {"vpt_shallow": SHALLOW, "vpt_deep": DEEP}.get(method)
    # What is trained is linear in the classes and in the prompt length.
    options = {"length": 1} if lengths else {}
    base = trained_on_vit_b16(method, options, 1)
    per_class = trained_on_vit_b16(method, options, 2) - base
    per_token = 0
    if lengths:
        per_token = trained_on_vit_b16(method, {"length": 2}, 1) - base
    total = sum(
        base + (classes - 1) * per_class + (length - 1) * per_token
        for classes, length in zip(
            CLASSES_OF_24.values(), lengths or [1] * 24, strict=True
        )
    )
    shared = 0 if method == "full" else BACKBONE
    assert round((shared + total) / BACKBONE, 2) == RATIOS[method]


@pytest.mark.parametrize(
    "method, number",  # with a head of 100 classes, 76,900
    [
        ("full", 85_798_656),
        ("linear", 0),
        ("partial-1", 7_087_872 + 1_536),
        ("mlp-3", 2 * (590_592 + 1_536)),
        ("sidetune", 9_547_585),
        ("bias", 102_912),
        ("adapter-8", 1_779_840),
        ("adapter-64", 230_544),
        ("adapter-256", 64_548),
        ("lora-8", 12 * 2 * 2 * 768 * 8),
        ("layernorm", 25 * 2 * 768),
        ("adaptformer", 12 * (2 * 768 * 64 + 64 + 768)),
    ],
)
def test_counts_on_vit_b16(method, number):
    assert trained_on_vit_b16(method, {}, 100) == number + 76_900


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({name: trained_of(name) for name in CASES}, indent=1) + "\n"
    )
