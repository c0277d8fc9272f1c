"""Every method on every family of backbones: it trains, or says in one line why not.

All pairs are traced; gradients are taken where a family treats a method in its own way.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from building import build_model
from flax import nnx
from product import shortened, slow

from vpt_jax import UserError, backbones, methods
from vpt_jax.backbones.clip import CLIPConfig
from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.dinov2 import DINOv2Config
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.pe import PEConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.siglip import SigLIPConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.methods import METHODS
from vpt_jax.model import Context, merged_backbone
from vpt_jax.types import flatten, path_name

SHAPE = (16, 8, 3, 2, 16, 64)
FAMILIES = {
    "vit": ViTConfig(*SHAPE),
    "mae": MAEConfig(*SHAPE),
    "moco": MoCoConfig(*SHAPE),
    "dinov2": DINOv2Config(*SHAPE, registers=2, swiglu=True),
    "clip": CLIPConfig(*SHAPE),
    "siglip": SigLIPConfig(*SHAPE),
    "dinov3": DINOv3Config(*SHAPE, registers=2, swiglu=True),
    "pe": PEConfig(*SHAPE, native=2),
    "eva02": EVA02Config(*SHAPE, normed=True),
    "swin": SwinConfig(8, (2, 3), (2, 2), window=4, patch=8, image_size=64),
    "convnext": ConvNeXtConfig((1, 2), (8, 16), image_size=64),
    "resnet": ResNetConfig((1, 2), planes=(2, 4), stem=4, image_size=64),
}
OPTIONS = {
    "prompt": {"length": 2},
    "prompt_add": {"single": True},
    "prompt_pad": {"padding": 32},
    "adapter": {"reduction": 2},
    "lora": {"rank": 2},
}
TOKENS = "prompt tokens need blocks with attention"
REFUSED = {
    ("swin", "prompt_pixel"): "needs a ViT",
    ("swin", "cls"): "a CLS token",
    ("swin", "gated"): "needs a ViT",
    ("siglip", "cls"): "a CLS token",
    **{
        (family, method): message
        for family in ("convnext", "resnet")
        for method, message in {
            "prompt": TOKENS,
            "prompt_add": TOKENS,
            "vfpt": TOKENS,
            "gated": "needs a ViT",
            "prompt_pixel": "needs a ViT",
            "cls": "a CLS token",
            "lora": "no plain linear layer attn.query",
        }.items()
    },
    ("resnet", "adapter"): "whose blocks have an MLP",
    ("resnet", "adaptformer"): "whose blocks have an MLP",
    ("resnet", "layernorm"): "finds no LayerNorm in ResNet",
}


def build(family, method, options):
    chosen = methods.choose(method, options)
    config = FAMILIES[family]
    size = methods.image_size(chosen, config.image_size)
    config = dataclasses.replace(config, image_size=size)
    backbone = backbones.FAMILIES[type(config)](config, rngs=nnx.Rngs(0))
    return chosen, build_model(backbone, 3, chosen)


@pytest.mark.parametrize("family", shortened(FAMILIES, ("vit", "swin", "resnet")))
def test_every_method_traces_or_refuses(family):
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    for method in METHODS:
        options = OPTIONS.get(method, {})
        if (family, method) in REFUSED:
            with pytest.raises(UserError, match=REFUSED[family, method]):
                nnx.eval_shape(lambda m=method, o=options: build(family, m, o)[1])
            continue

        def run(images, method=method, options=options):
            chosen, model = build(family, method, options)
            trainable = methods.split(model, chosen)[1]
            return model(images), trainable["head"]

        logits, head = jax.eval_shape(run, images)
        assert logits.shape == (2, 3) and head, method


GRADIENTS = [
    slow("swin", "vpt_deep", {"length": 2}),
    slow("swin", "vpt_shallow", {"length": 2}),
    ("swin", "prompt", {"length": 2, "layers": -2, "pool": "image"}),
    slow("swin", "prompt", {"length": 2, "layers": 3, "keep": False}),
    slow("swin", "prompt_add", {"single": True}),
    ("swin", "partial-4", {}),
    ("swin", "bias", {"position_bias": True}),
    ("swin", "adapter", {"reduction": 2}),
    slow("swin", "lora", {"targets": "query,out,fc1"}),
    ("convnext", "prompt_below", {"length": 2}),
    ("convnext", "partial-2", {}),
    slow("convnext", "ssf", {}),
    ("resnet", "prompt_below", {"length": 2}),
    slow("resnet", "partial-2", {}),
    ("resnet", "full", {}),
    ("resnet", "ssf", {}),
    ("dinov2", "vpt_deep+lora", {"length": 2, "targets": "query,value,fc1"}),
    ("siglip", "vpt_deep", {"length": 2}),
    ("dinov3", "vpt_deep+lora", {"length": 2, "targets": "query,value,fc1"}),
    slow("dinov3", "full", {}),
    slow("pe", "vpt_deep+bias", {"length": 2}),
    slow("eva02", "gated", {"length": 2, "gate_init": 1.0}),
    ("mae", "partial-1", {}),
]


@pytest.mark.parametrize("family, method, options", GRADIENTS)
def test_every_trained_tensor_moves(family, method, options):
    chosen, model = build(family, method, options)
    graphdef, trainable, frozen, stats = methods.split(model, chosen)
    images = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
    labels = jax.nn.one_hot(jnp.arange(4) % 3, 3)

    @jax.jit
    def step(trainable, stats, key):
        def loss(trainable):
            model = nnx.merge(graphdef, trainable, frozen, stats)
            logits = model(images, key=key, train=True, mask=jnp.ones(4))
            loss = -(labels * jax.nn.log_softmax(logits)).sum()
            return loss, methods.split(model, chosen)[3]

        return jax.grad(loss, has_aux=True)(trainable)

    seen = jax.tree.map(jnp.zeros_like, trainable)
    moved = stats
    for key in jax.random.split(jax.random.key(1), 2):
        grads, moved = step(trainable, moved, key)
        seen = jax.tree.map(lambda s, g: jnp.maximum(s, jnp.abs(g)), seen, grads)
        trainable = jax.tree.map(lambda x, g: x - 0.1 * g, trainable, grads)
    for path, size in flatten(seen).items():
        # A key bias has no gradient in exact terms, see test_conformance.
        if "key" not in path or path[-1] != "bias":
            assert size.max() > 0, path_name(path)
    for path, before in flatten(stats).items():
        assert not np.array_equal(before, flatten(moved)[path]), path_name(path)


def test_partial_counts_blocks_across_stages_and_what_is_between_them():
    def trained(family, k):
        chosen, model = build(family, f"partial-{k}", {})
        paths = flatten(methods.split(model, chosen)[1])
        return {path_name(p[1:5]) for p in paths if p[:2] == ("backbone", "stages")}

    last = {"stages.1.blocks.1", "stages.1.blocks.2"}
    assert trained("swin", 2) == last
    between = {"stages.0.merging.norm", "stages.0.merging.reduction"}
    found = trained("swin", 4)
    assert found == last | {"stages.1.blocks.0", "stages.0.blocks.1"} | between
    assert trained("resnet", 1) == {"stages.1.blocks.1"}
    assert "stages.1.downsample.conv" not in trained("convnext", 2)


def test_statistics_move_only_where_trained():
    chosen, model = build("resnet", "partial-1", {})
    stats = flatten(methods.split(model, chosen)[3])
    assert {p[:5] for p in stats} == {("backbone", "stages", 1, "blocks", 1)}
    assert not flatten(methods.split(*build("resnet", "bias", {})[::-1])[3])


def test_deep_prompts_of_swin_share_one_dropout_mask():
    _, model = build("swin", "vpt_deep", {"length": 2, "dropout": 0.5})
    edit = model.edits["prompt"]
    context = Context(model.backbone, jax.random.key(0), True)
    first = edit.before_block(0, jnp.ones((8, 64, 8)), context)[:, :2]
    later = edit.before_block(1, jnp.ones((8, 66, 8)), context)[:, :2]
    assert len({bytes(np.asarray(x)) for x in first}) > 1
    assert len({bytes(np.asarray(x)) for x in later}) == 1


# ---- loops and recomputation

ALIKE = [
    ("vit", "vpt_deep", {"length": 2}),
    slow("vit", "prompt", {"length": 2, "layers": 2, "keep": False}),
    slow("dinov2", "lora+layernorm", {"rank": 2}),
    slow("vit", "gated", {"length": 2}),
    slow("swin", "vpt_deep", {"length": 2}),
]


@pytest.mark.parametrize("family, method, options", ALIKE)
def test_scan_and_remat_give_the_same_gradients(family, method, options, monkeypatch):
    deep = dataclasses.replace(FAMILIES["vit"], depth=5)
    monkeypatch.setitem(FAMILIES, "vit", deep)
    single = SwinConfig(8, (1, 5), (2, 2), window=4, patch=8, image_size=64)
    monkeypatch.setitem(FAMILIES, "swin", single)
    chosen, model = build(family, method, options)
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))

    def gradients(scan, remat):
        model.scan, model.remat = scan, remat
        graphdef, trainable, frozen, stats = methods.split(model, chosen)

        def loss(trainable):
            whole = nnx.merge(graphdef, trainable, frozen, stats)
            return (whole(images, key=jax.random.key(3), train=True) ** 2).sum()

        return jax.jit(jax.value_and_grad(loss))(trainable)

    with jax.default_matmul_precision("highest"):
        plain = gradients(False, False)
        for scan, remat in ((True, False), (True, True), (False, True)):
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
                gradients(scan, remat),
                plain,
            )


def test_scan_does_not_grow_with_depth(monkeypatch):
    def equations(depth):
        config = dataclasses.replace(FAMILIES["vit"], depth=depth)
        monkeypatch.setitem(FAMILIES, "vit", config)

        def run(images):
            _, model = build("vit", "vpt_deep", {"length": 2})
            model.scan = True
            return model(images)

        images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
        return str(jax.make_jaxpr(run)(images)).count("dot_general")

    assert equations(6) == equations(12)


def test_ssf_on_a_resnet_has_more_than_a_plain_one_can_hold():
    """Its convolutions have no bias; `export.check_backbone` names one and refuses."""
    chosen, model = build("resnet", "ssf", {})
    plain = flatten(nnx.as_pure(nnx.state(build("resnet", "linear", {})[1].backbone)))
    merged = flatten(nnx.as_pure(nnx.state(merged_backbone(model))))
    added = merged.keys() - plain.keys()
    assert added and {path[-1] for path in added} == {"bias"}
