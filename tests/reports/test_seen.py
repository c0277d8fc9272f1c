"""What the figures of the network itself show is what the network computes."""

import jax
import jax.numpy as jnp
import numpy as np
from building import build_model
from flax import nnx
from training import tiny

from vpt_jax import methods, parallel
from vpt_jax.backbones.pe import PE, PEConfig
from vpt_jax.data.examples import Examples
from vpt_jax.model import Context
from vpt_jax.reports import seen
from vpt_jax.serving import attention
from vpt_jax.serving.classifier import Classifier
from vpt_jax.training import programs


def tuned_of(method, **options):
    setup = tiny.make_setup(method, options)
    hyper = tiny.make_hyper([0.1], [0.0], [1])
    mesh = parallel.make_mesh(1, tiny.BATCH)
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    trainable, stats = jax.tree.map(lambda x: x[0], state[:2])
    return Classifier(setup.network, trainable, stats, ("a", "b", "c"), {})


def examples_of(count):
    images, labels = tiny.make_data()
    ids = [str(n) for n in range(count)]
    return Examples.from_images(
        list(np.asarray(images)[:count]), np.asarray(labels[:count]), ids
    )


def test_the_head_makes_the_logits_of_the_features():
    tuned, examples = tuned_of("prompt", length=2), examples_of(6)
    head = tuned.trainable["head"]
    kernel, bias = np.asarray(head["kernel"]), np.asarray(head["bias"])
    logits = seen.features(tuned, examples) @ kernel + bias
    np.testing.assert_allclose(logits, tuned.outputs(examples), atol=1e-5)


def test_attention_of_prompts():
    """Rows of the last block's softmax: of CLS and two prompts, over four patches."""
    tuned = tuned_of("prompt", length=2)
    found = np.asarray(attention.attention(tuned, examples_of(3)))
    assert found.shape == (3, 3, 4)
    assert (found > 0).all() and (found.sum(-1) < 1).all()
    # ---- uniform weights where all keys are equal: 4 of 7 tokens are patches
    graphdef, _, frozen, _ = tuned.network.parts
    trainable, stats = tuned.trainable, tuned.stats
    model = nnx.merge(graphdef, trainable, frozen, stats)
    kernel = model.backbone.blocks[-1].attn.key.kernel
    kernel[...] = jnp.zeros_like(kernel[...])
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
    weights = attention.attention_of(model, images.astype(jnp.float32))
    np.testing.assert_allclose(weights, np.full((2, 3, 4), 1 / 7), atol=1e-6)
    assert attention.attention(tuned_of("linear"), examples_of(3)).shape == (3, 1, 4)


def test_attention_is_that_of_the_network_where_patches_turn():
    """Values that name their token make the network itself tell its weights."""
    config = PEConfig(4, 32, 2, 2, 64, 8)
    chosen = methods.choose("vpt_deep", {"length": 2})
    model = build_model(PE(config, rngs=nnx.Rngs(0)), 3, chosen)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    weights = attention.attention_of(model, images)
    last = model.backbone.blocks[-1].attn
    names = jnp.tile(jnp.eye(7, 16), (1, 2))
    last.value = lambda x: jnp.broadcast_to(names, (len(x), 7, 32))
    last.out = lambda x: x
    context = Context(model.backbone, None, False)
    tokens = model.edits["prompt"].before_block(1, model.prefix(images, 2), context)
    told = last(model.backbone.blocks[-1].norm1(tokens))
    told = told.reshape(2, 7, 2, 16).mean(2)[:, :3, 3:7]
    np.testing.assert_allclose(weights, told, atol=1e-5)


def test_both_figures_are_drawn():
    tuned, examples = tuned_of("prompt", length=2), examples_of(9)
    cloud = seen.tsne(seen.features(tuned, examples), examples.labels)
    points = [len(dots.get_offsets()) for dots in cloud.axes[0].collections]
    assert sum(points) == len(examples) and len(points) == len(set(examples.labels))
    weights = attention.attention(tuned, examples)
    maps = seen.attention_maps(tuned, examples, weights)
    titles = [axis.get_title() for axis in maps.axes[:5]]
    assert titles == ["image", "CLS", "mean of prompts", "prompt 1", "prompt 2"]
