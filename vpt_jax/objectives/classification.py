"""One class of C for each image: softmax, cross-entropy, top-1.

The loss is the public code's (`src/solver/losses.py:65-67`); percent values are 0 to
100.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from vpt_jax.model import LinearHead
from vpt_jax.types import widened

METRIC, HIGHER_IS_BETTER, LABEL, UNIT = "top1", True, "top-1", "%"
DENSE = False
COLUMNS = ("class", "probability")
CLASS_WEIGHTS = {"none": 0.0, "inv": -1.0, "inv_sqrt": -0.5}


def head(width: int, num_classes: int, rngs: nnx.Rngs) -> LinearHead:
    """Features to logits."""
    return LinearHead(width, num_classes, rngs=rngs)


HEADS, SERVED = {"linear": head}, {}


def counted(num_classes: int) -> tuple[()]:
    """The shape of what `count` gives."""
    return ()


def wrong(targets: Int[np.ndarray, " n"], num_classes: int) -> tuple[int, str] | None:
    """The first label that is none of 0 to C - 1, and what to say of it.

    XLA clamps or drops an index out of range instead of failing, so a wrong label would
    train silently.
    """
    found = np.flatnonzero((targets < 0) | (targets >= num_classes))
    if not found.size:
        return None
    first = int(found[0])
    return first, (
        f"has label {targets[first]}, but labels must be 0 to {num_classes - 1}"
    )


def weights(
    kind: str, targets: Int[np.ndarray, " n"], num_classes: int
) -> Float32[np.ndarray, " C"]:
    """Weights against class imbalance: a power of each class's number of images.

    Their mean over the classes that occur is 1; a class without images has 0. Fixed:
    the public code counts each class once (`src/data/datasets/json_dataset.py:93-104`),
    so its weights are all 1.

    Args:
        kind: A key of `CLASS_WEIGHTS`.
        targets: Of the training images.
        num_classes: C.
    """
    counts = np.bincount(targets, minlength=num_classes).astype(np.float64)
    weights = np.zeros(num_classes)
    present = counts > 0
    weights[present] = counts[present] ** CLASS_WEIGHTS[kind]
    return (weights / weights[present].mean()).astype(np.float32)


def loss(
    outputs: Float[Array, "B C"],
    targets: Int[Array, " B"],
    mask: Float[Array, " B"],
    weights: Float[Array | np.ndarray, " C"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(cross-entropy summed over the rows that count, their number).

    A row is weighted by its class in the sum, but not in the number.
    """
    log_p = jax.nn.log_softmax(widened(outputs))
    of_label = jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
    if weights is not None:
        of_label *= jnp.asarray(weights, log_p.dtype)[targets]
    return -jnp.sum(of_label * mask), jnp.sum(mask)


def count(
    outputs: Float[Array, "B C"], targets: Int[Array, " B"], mask: Float[Array, " B"]
) -> Float[Array, ""]:
    """Rows that count and are classified correctly."""
    return jnp.sum((outputs.argmax(-1) == targets) * mask)


def running(counted: float, examples: int) -> float:
    """top1 from a sum of `count` over that many images."""
    return 100 * counted / examples


def guessed(score: float, num_classes: int) -> bool:
    """Whether a top1 is about what guessing gives."""
    return score < 150 / num_classes


def score(
    outputs: Float[np.ndarray, "n C"], targets: Int[np.ndarray, " n"]
) -> dict[str, float | None]:
    """top1, top5 (C >= 5), mean per-class top1 and, for two classes, ROC AUC.

    A class without examples does not count in the mean. A split that holds one class
    only has no AUC (None).
    """
    num_classes = outputs.shape[1]
    hit = outputs.argmax(1) == targets
    result = {"top1": 100 * float(hit.mean()), "top5": None, "auc": None}
    if num_classes >= 5:
        at = np.take_along_axis(outputs, targets[:, None], axis=1)
        # Rank with ties against the label: no credit for constant logits.
        ahead = (outputs >= at).sum(1) - 1
        result["top5"] = 100 * float((ahead < 5).mean())
    present = np.unique(targets)
    per_class = [hit[targets == label].mean() for label in present]
    result["mean_per_class"] = 100 * float(np.mean(per_class))
    if num_classes == 2 and len(present) == 2 and np.isfinite(outputs).all():
        from sklearn.metrics import roc_auc_score  # slow, and rarely needed

        margin = outputs[:, 1] - outputs[:, 0]
        result["auc"] = 100 * float(roc_auc_score(targets, margin))
    return result


def together(outputs: Float[np.ndarray, "T n C"]) -> Float[np.ndarray, "n C"]:
    """Class probabilities averaged over trials; they rank as logits would."""
    return probabilities(outputs).mean(0)


def probabilities(outputs: Float[np.ndarray, "*n C"]) -> Float[np.ndarray, "*n C"]:
    """Softmax over the classes."""
    shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def row(probabilities: Float[np.ndarray, " C"], names: tuple[str, ...]) -> tuple:
    """The most likely class and its probability."""
    best = int(probabilities.argmax())
    return names[best], round(float(probabilities[best]), 6)
