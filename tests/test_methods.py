"""Every method on the embedded architecture: what is trained, and that it trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax import UserError, methods
from vpt_jax.backbones.vit import ViT, ViTConfig
from vpt_jax.model import first_trained_step
from vpt_jax.training import losses
from vpt_jax.types import flatten, path_name

SMALL = ViTConfig(patch=4, width=8, depth=3, heads=2, mlp_dim=16, image_size=8)
HEAD = ["head.bias", "head.kernel"]
PROMPTS = [f"edits.prompt.tokens.{i}" for i in range(3)]
PROJECT = ["edits.prompt.project.bias", "edits.prompt.project.kernel"]
LENGTHS = {"length": 2}

# name, options, trained names (None: all), trained numbers, leading frozen steps
TABLE = [
    ("linear", {}, HEAD, 8 * 5 + 5, 5),
    ("prompt", LENGTHS, HEAD + PROMPTS, 45 + 3 * 2 * 8, 1),
    ("prompt", LENGTHS | {"deep": False}, HEAD + PROMPTS[:1], 45 + 2 * 8, 1),
    (
        "prompt",
        LENGTHS | {"project": 4},
        HEAD + PROJECT + PROMPTS,
        45 + 3 * 2 * 4 + 4 * 8 + 8,
        1,
    ),
    ("full", {}, None, None, 0),
]
IDS = [f"{name}-{'-'.join(options)}" for name, options, *_ in TABLE]


def make(name, options):
    config = methods.make_config(name, options)
    backbone = ViT(SMALL, rngs=nnx.Rngs(0))
    model = methods.build(backbone, 5, name, config, nnx.Rngs(1))
    return model, methods.split(model, name, config)


@pytest.mark.parametrize("name, options, names, number, cut", TABLE, ids=IDS)
def test_conformance(name, options, names, number, cut):
    model, (graphdef, trainable, frozen, stats) = make(name, options)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    labels, mask = jnp.arange(4), jnp.ones(4)

    found = sorted(map(path_name, flatten(trainable)))
    if names is not None:
        assert found == sorted(names)
        assert sum(x.size for x in jax.tree.leaves(trainable)) == number
    else:
        assert not flatten(frozen)
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    assert first_trained_step(graphdef, trainable, frozen, stats, shape) == cut

    # The frozen prefix and the rest make the whole.
    whole = model(images)
    prefix = model.prefix(images, cut)
    np.testing.assert_allclose(model.suffix(prefix, cut), whole, atol=1e-6)

    # Every trained tensor has a gradient (but key biases: exactly zero in theory).
    def loss(trainable):
        model = nnx.merge(graphdef, trainable, frozen, stats)
        logits = model(images, key=jax.random.key(1), train=True, mask=mask)
        return losses.cross_entropy(logits, labels, mask)

    for path, grad in flatten(jax.jit(jax.grad(loss))(trainable)).items():
        if path[-2:] != ("key", "bias"):
            assert jnp.abs(grad).max() > 0, path_name(path)


def test_a_deeper_prompt_replaces_the_one_before():
    model, _ = make("prompt", LENGTHS | {"dropout": 0.0})
    edit = model.edits["prompt"]
    tokens = model.backbone.embed(jnp.ones((2, 8, 8, 3)))
    first = edit.before_block(0, tokens, key=None, train=False)
    second = edit.before_block(1, first, key=None, train=False)
    assert first.shape == second.shape == (2, 5 + 2, 8)
    for layer, sequence in enumerate((first, second)):
        np.testing.assert_array_equal(sequence[:, :1], tokens[:, :1])
        np.testing.assert_array_equal(sequence[1, 1:3], edit.tokens[layer][...])
        np.testing.assert_array_equal(sequence[:, 3:], tokens[:, 1:])


def test_prompt_dropout_has_one_mask_per_image_and_is_off_at_inference():
    model, _ = make("prompt", {"length": 50, "dropout": 0.5})
    edit = model.edits["prompt"]
    tokens = model.backbone.embed(jnp.ones((2, 8, 8, 3)))
    key = jax.random.key(3)
    prompts = edit.before_block(0, tokens, key=key, train=True)[:, 1:51]
    dropped = prompts == 0
    assert 0.3 < dropped.mean() < 0.7
    assert not jnp.array_equal(dropped[0], dropped[1])
    kept = jnp.where(dropped, 0, 2 * edit.tokens[0][...])
    np.testing.assert_allclose(prompts, kept, atol=1e-6)
    assert jnp.array_equal(model(jnp.ones((2, 8, 8, 3))), model(jnp.ones((2, 8, 8, 3))))


def test_prompts_start_within_the_published_bound():
    model, _ = make("prompt", {"length": 500})
    bound = (6 / (3 * 4**2 + 8)) ** 0.5
    values = np.stack([x[...] for x in model.edits["prompt"].tokens])
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.99 * bound


def test_full_turns_on_dropout_of_the_backbone():
    model, _ = make("full", {"dropout": 0.5})
    images = jnp.ones((1, 8, 8, 3))
    a, b = (model(images, key=jax.random.key(n), train=True) for n in (0, 1))
    assert not jnp.allclose(a, b)
    assert jnp.array_equal(model(images), model(images))


def test_an_answer_that_is_no_group_is_refused(monkeypatch):
    from vpt_jax.methods import linear

    model, _ = make("linear", {})
    monkeypatch.setattr(linear, "group", lambda *_: "train")
    with pytest.raises(ValueError, match="'train' for backbone"):
        methods.split(model, "linear", linear.LinearConfig())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lenght": 3}, "no option 'lenght'; its options: length, deep"),
        ({"length": 0}, "method.length 0"),
        ({"dropout": 1.0}, "method.dropout 1.0"),
        ({"project": -1}, "method.project -1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        methods.make_config("prompt", options)


def test_aliases():
    assert methods.canonical("vpt-deep") == ("prompt", {"deep": True})
    assert methods.canonical("vpt_shallow") == ("prompt", {"deep": False})
    with pytest.raises(UserError, match="unknown method 'vtp'; known: vpt_deep"):
        methods.canonical("vtp")


def test_config_of_every_method_is_frozen():
    for recipe in methods.METHODS.values():
        assert recipe.config.__dataclass_params__.frozen
        assert dataclasses.is_dataclass(recipe.config)
