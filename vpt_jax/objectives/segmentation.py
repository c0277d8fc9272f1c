"""One class of C, or none, for each pixel: cross-entropy, mean intersection over union.

Targets are (B, h, w) of 0 to C - 1, or `IGNORED`. The loss is mmsegmentation's: the
mean over all pixels, where ignored ones have loss 0 but count (`avg_non_ignore=False`),
of the main head and 0.4 times that of each auxiliary one. Scores are made of counts of
pixels (3, C): where prediction and target agree, predicted, and in the target.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vpt_jax.bilinear import matrix
from vpt_jax.objectives import heads
from vpt_jax.objectives.heads import Logits
from vpt_jax.types import widened

METRIC, HIGHER_IS_BETTER, LABEL, UNIT = "miou", True, "mIoU", "%"
DENSE = True
CLASS_WEIGHTS = ("none",)
IGNORED = 255
AUXILIARY_WEIGHT = 0.4
ROWS = 32  # of pixels, whose logits are in memory at once

HEADS, SERVED = heads.HEADS, {"pup": "pup_alone"}


def wrong(targets, num_classes: int) -> None:
    """Nothing: masks are checked where they are read, file by file."""


def weights(kind: str, targets, num_classes: int) -> np.ndarray:
    """All 1."""
    return np.ones(num_classes, np.float32)


def loss(
    outputs: Logits,
    targets: Int[Array, "B s s"],
    mask: Float[Array, " B"],
    weights: Float[Array | np.ndarray, " C"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(loss summed over the images that count, their number)."""
    each = _per_image(outputs.main, targets, weights)
    for logits in outputs.auxiliary:
        each += AUXILIARY_WEIGHT * _per_image(logits, targets, weights)
    return jnp.sum(each * mask), jnp.sum(mask)


def _per_image(logits, targets, weights) -> Float[Array, " B"]:
    """Mean cross-entropy over the pixels, a few rows of all images at a time: logits
    of all pixels would be gigabytes. The backward pass computes them again."""
    size = targets.shape[1]
    rows = max(n for n in range(1, ROWS + 1) if size % n == 0)
    up = matrix(logits.shape[1], size)
    weights = jnp.ones(logits.shape[-1]) if weights is None else jnp.asarray(weights)

    @jax.checkpoint
    def strip(up_rows, of_rows):
        x = jnp.einsum("yi,bijc->byjc", up_rows, widened(logits))
        x = jnp.einsum("xj,byjc->byxc", up, x)
        known = of_rows != IGNORED
        label = jnp.where(known, of_rows, 0)
        log_p = jax.nn.log_softmax(x)
        of_label = jnp.take_along_axis(log_p, label[..., None], -1)[..., 0]
        return -jnp.sum(of_label * weights[label] * known, (1, 2))

    strips = up.reshape(-1, rows, up.shape[1]), _strips(targets, rows)
    _, sums = jax.lax.scan(lambda carry, x: (carry, strip(*x)), None, strips)
    return sums.sum(0) / size**2


def _strips(targets: Int[Array, "B s s"], rows: int) -> Int[Array, "n B rows s"]:
    batch, size, _ = targets.shape
    return targets.reshape(batch, size // rows, rows, size).swapaxes(0, 1)


def counted(num_classes: int) -> tuple[int, ...]:
    """The shape of what `count` gives."""
    return (3, num_classes)


def count(
    outputs: Logits, targets: Int[Array, "B s s"], mask: Float[Array, " B"]
) -> Float[Array, "3 C"]:
    """Counts of pixels, in passing: on the grid of the main head's logits."""
    points, size = outputs.main.shape[1], targets.shape[1]
    nearest = ((np.arange(points) + 0.5) * size / points).astype(int)
    targets = targets[:, nearest][:, :, nearest]
    known = (targets != IGNORED) * mask.reshape(-1, 1, 1)
    classes = jnp.arange(outputs.main.shape[-1]).reshape(1, 1, 1, -1)
    is_target = targets[..., None] == classes
    is_guess = outputs.main.argmax(-1)[..., None] == classes
    cases = is_target & is_guess, is_guess, is_target
    return jnp.stack([jnp.sum(x * known[..., None], (0, 1, 2)) for x in cases])


def counts_of(
    labels: UInt8[np.ndarray, "h w"],
    targets: UInt8[np.ndarray, "h w"],
    num_classes: int,
) -> Int[np.ndarray, "3 C"]:
    """Counts of pixels of one image, exact."""
    known = targets != IGNORED
    pairs = targets[known].astype(np.int64) * num_classes + labels[known]
    table = np.bincount(pairs, minlength=num_classes**2)
    table = table.reshape(num_classes, num_classes)  # by target, by prediction
    return np.stack([np.diag(table), table.sum(0), table.sum(1)])


def running(counted, examples: int) -> float:
    """mIoU from a sum of `count`."""
    return score(np.asarray(counted))["miou"]


def guessed(score: float, num_classes: int) -> bool:
    """Whether a mIoU is what one class everywhere could get."""
    return score < 100 / num_classes


def score(counts: np.ndarray) -> dict:
    """Of counts over a whole set: mIoU, the part of pixels that are right, the mean of
    that over the classes of the targets, and the IoU of each class.

    A class that is neither predicted nor in a target has no IoU (None) and does not
    count in the mean.
    """
    both, guessed, there = counts.astype(np.float64)
    union = guessed + there - both
    present, targets = union > 0, there > 0
    iou = 100 * both[present] / union[present]
    each = np.full(len(union), None)
    each[present] = iou
    recall = both[targets] / there[targets]
    return {
        "miou": float(iou.mean()) if len(iou) else 0.0,
        "pixel_accuracy": 100 * float(both.sum() / max(there.sum(), 1)),
        "mean_accuracy": 100 * float(recall.mean()) if len(recall) else 0.0,
        "iou": each.tolist(),
    }
