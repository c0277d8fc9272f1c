"""A picture of test images: what each network calls them, and where its CLS looks."""

import numpy as np
from jaxtyping import Float

from vpt_jax import data, methods
from vpt_jax.data import preprocess
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.reports import style
from vpt_jax.serving.attention import attention
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.load import load
from vpt_jax.storage.files import write_bytes
from vpt_jax.storage.paths import Folder

IMAGES = 8
DARK = 0.25
RIGHT, WRONG = "#117733", "#aa3333"


def draw(folders: list[Folder], picture: Folder, checkpoint: str | None) -> None:
    """The first test images, a row for each run.

    Args:
        folders: Of the runs, all of one task.
        picture: The `.png` to write.
        checkpoint: Of their backbone, as the user named it.
    """
    tuned = {_label(one): one for one in (load(path, checkpoint) for path in folders)}
    if any(one.network.objective.DENSE for one in tuned.values()):
        raise UserError("no token answers for the whole image")
    config = next(iter(tuned.values())).manifest["config"]
    where = config["data"]["dir"]
    task = data.get_task(config["task"], where)
    examples = task.load("test", where, limit=IMAGES)
    title = "Test images, what they are taken for, and where CLS looks"
    write_bytes(picture, style.png(rows(tuned, examples), title))


def rows(tuned: dict[str, Classifier], examples: Examples) -> style.Canvas:
    """The images above, and each network's view of them below."""
    count = len(examples)
    figure = style.canvas(1.2 * count + 1, 1.2 + 1.45 * len(tuned))
    axes = figure.subplots(1 + len(tuned), count, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for top, image in zip(axes[0], examples.images, strict=True):
        top.imshow(image)
    for below, (name, one) in zip(axes[1:], tuned.items(), strict=True):
        below[0].set_ylabel(name, fontsize=11)
        _view(below, one, examples)
    return figure


def _label(tuned: Classifier) -> str:
    config = tuned.manifest["config"]
    options = dict(config["method"])
    return methods.label(options.pop("name"), options, config["backbone"]["name"])


def _view(axes: np.ndarray, tuned: Classifier, examples: Examples) -> None:
    objective, size = tuned.network.objective, tuned.network.image_size
    outputs = tuned.outputs(examples)
    weights = attention(tuned, examples)
    for k, axis in enumerate(axes):
        image = preprocess.resize_host(examples.images[k], size) / 255
        # Dark where CLS does not look.
        light = 1.0 if weights is None else _light(np.asarray(weights[k, 0]), size)
        axis.imshow(np.clip(image, 0, 1) * light)
        one = slice(k, k + 1)
        score = objective.score(outputs[one], examples.labels[one])[objective.METRIC]
        [found] = objective.probabilities(outputs[one])
        taken_for = str(objective.row(found, tuned.classes)[0])
        colour = RIGHT if score == 100 else WRONG
        axis.set_xlabel(taken_for, color=colour, fontsize=11, labelpad=2)


def _light(weights: Float[np.ndarray, " N"], size: int) -> Float[np.ndarray, "h w 1"]:
    """Of each pixel: 1 where the most attention is, DARK where the least."""
    side = int(len(weights) ** 0.5)
    low, high = weights.min(), weights.max()
    square = ((weights - low) / max(high - low, 1e-12)).reshape(side, side, 1)
    grey = np.rint(255 * square.repeat(3, -1)).astype(np.uint8)
    return DARK + (1 - DARK) * preprocess.resize_host(grey, size)[..., :1] / 255
