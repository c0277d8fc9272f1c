"""Figures that need the tuned network itself: its features and its attention.

t-SNE of the features before the head is the paper's figure 9 (there the CLS token);
the attention of prompts shows which patches they read in the last block.
"""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from matplotlib import colormaps
from sklearn.manifold import TSNE

from vpt_jax import data
from vpt_jax.data import preprocess
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.reports import style
from vpt_jax.reports.collect import Run
from vpt_jax.reports.figures import name_of
from vpt_jax.reports.style import Canvas, Figure
from vpt_jax.serving.attention import attention
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
        name = name_of(run)
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
    tuned: Classifier,
    examples: Examples,
    weights: Float[Array, "B Q N"],
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
