"""Figures that need the tuned network itself: its features and its attention.

t-SNE of the features before the head is the paper's figure 9 (there the CLS token);
the attention of prompts shows which patches they read in the last block.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from matplotlib import colormaps
from sklearn.manifold import TSNE

from vpt_jax import data
from vpt_jax.data import preprocess
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.model import Context, Model
from vpt_jax.progress import say
from vpt_jax.reports import result, style
from vpt_jax.reports.collect import Run
from vpt_jax.reports.style import Canvas, Figure
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.load import load
from vpt_jax.training import inputs

IMAGES = 4  # of the figure of attention
PROMPTS = 3  # that are shown one by one


def draw_all(runs: list[Run], num_images: int) -> list[Figure]:
    """Both figures of every run that is still there to be loaded."""
    drawn = []
    for run in runs:
        try:
            tuned, examples = _load(run, num_images)
        except UserError as error:
            say(f"no features of {run.path}: {error}")
            continue
        name = style.file_name(run.backbone, run.method, run.variant, run.task)
        name = result.place(name, run.metric)
        title = f"t-SNE of test features, {run.who}"
        figure = tsne(features(tuned, examples), examples.labels)
        drawn.append(style.finish(f"tsne_{name}", title, figure))
        found = attention(tuned, examples.select(range(min(IMAGES, len(examples)))))
        if found is not None and found.shape[1] > 1:
            title = f"Attention in the last block, {run.who}"
            figure = attention_maps(tuned, examples, found)
            drawn.append(style.finish(f"attention_{name}", title, figure))
    return drawn


def features(tuned: Classifier, examples: Examples) -> Float[np.ndarray, "n D"]:
    """What the head sees, for every image."""

    @jax.jit
    def run(trainable, stats, frozen, raw):
        model = nnx.merge(tuned.network.parts[0], trainable, frozen, stats)
        images = tuned.network.normalised(raw)
        return model.prefix(images, model.num_pieces - 1)

    trainable, stats = tuned.trainable, tuned.stats
    frozen = tuned.network.parts[2]
    return np.concatenate(
        [
            np.asarray(run(trainable, stats, frozen, raw))[:count]
            for _, count, raw in inputs.batches(tuned.network, examples)
        ]
    )


def attention(tuned: Classifier, examples: Examples) -> Float[Array, "B Q N"] | None:
    """`attention_of` a tuned model, on the first images."""
    trainable, stats = tuned.trainable, tuned.stats
    graphdef, _, frozen, _ = tuned.network.parts
    model = nnx.merge(graphdef, trainable, frozen, stats)
    raw = next(inputs.batches(tuned.network, examples, len(examples)))[2]
    return attention_of(model, tuned.network.normalised(jnp.asarray(raw)))


def attention_of(
    model: Model, images: Float[Array, "B h w 3"]
) -> Float[Array, "B Q N"] | None:
    """Weights of [CLS, P prompts] over the N patches in the last block, mean of heads.

    Returns:
        None where the network has no CLS token, or no such attention.
    """
    backbone: Any = model.backbone  # of those families that have such attention
    blocks = backbone.blocks
    last: Any = getattr(blocks[-1], "attn", None)
    first = getattr(backbone, "num_prefix", 0)
    if not hasattr(last, "query") or first < 1:
        return None
    plain = jax.eval_shape(lambda x: model.prefix(x, 1), images)
    tokens = model.prefix(images, len(blocks))
    context = Context(model.backbone, None, False)
    for edit in model.edits.values():
        tokens = edit.before_block(len(blocks) - 1, tokens, context)
    added = tokens.shape[1] - plain.shape[1]
    x = blocks[-1].norm1(tokens)
    asking = x[:, : first + added]
    query, key = (
        y.reshape(*y.shape[:2], last.heads, -1)
        for y in (last.query(asking), last.key(x))
    )
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores.astype(jnp.float32)).mean(1)
    # One row for CLS (the first of the prefix), one for each prompt.
    rows = jnp.concatenate([weights[:, :1], weights[:, first:]], axis=1)
    return rows[:, :, first + added :]


def tsne(vectors: Float[np.ndarray, "n D"], labels: np.ndarray) -> Canvas:
    """The features in two dimensions, coloured by class."""
    perplexity = min(30, max(2, len(vectors) // 4))
    flat = TSNE(perplexity=perplexity, random_state=0).fit_transform(vectors)
    classes = np.unique(labels)
    few = len(classes) <= len(style.COLOURS)
    shades = colormaps["viridis"]
    figure = style.canvas(6.4, 5.2)
    axis = figure.subplots()
    for k, label in enumerate(classes):
        own = flat[labels == label]
        colour = style.colour(k) if few else shades(k / len(classes))
        axis.scatter(*own.T, s=12, color=colour, label=str(label), linewidths=0)
    if few:
        axis.legend(
            title="class", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"{len(vectors)} test images, {len(classes)} classes")
    return figure


def attention_maps(
    tuned: Classifier, examples: Examples, weights: Float[Array, "B Q N"]
) -> Canvas:
    """A row per image: it, and where CLS, all prompts and single ones look."""
    cls, prompts = np.asarray(weights[:, 0]), np.asarray(weights[:, 1:])
    side = int(prompts.shape[-1] ** 0.5)
    count = min(PROMPTS, prompts.shape[1])
    columns = {"CLS": cls, "mean of prompts": prompts.mean(1)}
    columns |= {f"prompt {k + 1}": prompts[:, k] for k in range(count)}
    rows = min(len(cls), len(examples))
    figure = style.canvas(1.75 * (1 + len(columns)), 1.75 * rows + 0.8)
    axes = figure.subplots(rows, 1 + len(columns), squeeze=False)
    size = tuned.network.image_size
    for row in range(rows):
        image = preprocess.resize_host(examples.images[row], size) / 255
        axes[row, 0].imshow(np.clip(image, 0, 1))
        for column, maps in enumerate(columns.values(), start=1):
            one = maps[row].reshape(side, side)
            axis = axes[row, column]
            axis.imshow(np.clip(image, 0, 1).mean(-1), cmap="gray", alpha=0.9)
            extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
            axis.imshow(one, cmap="inferno", alpha=0.65, extent=extent)
    for column, name in enumerate(("image", *columns)):
        axes[0, column].set_title(name, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def _load(run: Run, num_images: int):
    tuned = load(run.path)
    if tuned.network.objective.DENSE:
        raise UserError("its head reads every token, not one feature of an image")
    config = tuned.manifest["config"]
    task = data.get_task(config["task"], config["data"]["dir"])
    return tuned, task.load("test", config["data"]["dir"], limit=num_images)
