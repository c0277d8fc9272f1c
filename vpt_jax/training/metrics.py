"""Scores of a split from its logits; percent values are 0 to 100."""

import numpy as np
from jaxtyping import Float, Int


def score(
    logits: Float[np.ndarray, "n C"], labels: Int[np.ndarray, " n"]
) -> dict[str, float | None]:
    """top1, top5 (C >= 5), mean per-class top1 and, for two classes, ROC AUC.

    A class without examples does not count in the mean. A split that holds one class
    only has no AUC (None).
    """
    num_classes = logits.shape[1]
    hit = logits.argmax(1) == labels
    result = {"top1": 100 * float(hit.mean()), "top5": None, "auc": None}
    if num_classes >= 5:
        at = np.take_along_axis(logits, labels[:, None], axis=1)
        # Rank with ties against the label: no credit for constant logits.
        ahead = (logits >= at).sum(1) - 1
        result["top5"] = 100 * float((ahead < 5).mean())
    present = np.unique(labels)
    per_class = [hit[labels == label].mean() for label in present]
    result["mean_per_class"] = 100 * float(np.mean(per_class))
    if num_classes == 2 and len(present) == 2 and np.isfinite(logits).all():
        from sklearn.metrics import roc_auc_score  # slow, and rarely needed

        margin = logits[:, 1] - logits[:, 0]
        result["auc"] = 100 * float(roc_auc_score(labels, margin))
    return result


def ensemble(
    logits: Float[np.ndarray, "T n C"], labels: Int[np.ndarray, " n"]
) -> float:
    """top1 of the class probabilities averaged over trials."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    mean = (shifted / shifted.sum(-1, keepdims=True)).mean(0)
    return 100 * float((mean.argmax(1) == labels).mean())
