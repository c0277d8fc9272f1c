"""What is predicted, and how well: one file for each kind of task.

    METRIC, HIGHER_IS_BETTER                  the primary score: its key and sense
    LABEL, UNIT                               its name and unit, as a person reads them
    DENSE                                     whether each pixel has a target: then
                                              images bring them as a fourth channel
    HEADS                                     by name: (width, num_classes, rngs) to
                                              what a plain backbone's features go into;
                                              the first is the usual one
    SERVED                                    heads of which less is left when they are
                                              trained, and the names of that
    wrong(targets, num_classes)               -> (number, problem) of a bad one, or None
    weights(kind, targets, num_classes)       of each class in the loss, (C,)
    loss(outputs, targets, mask, weights)     -> (sum over what counts, its number)
    count(outputs, targets, mask)             -> a sum that training adds up in passing,
    counted(num_classes)                      an array of this shape
    running(counted, examples)                that sum as the primary score
    guessed(score, num_classes)               whether it is no better than guessing
    CLASS_WEIGHTS                             what `weights` takes as its kind
    score(outputs, targets)                   -> every score by name, or None
    together(outputs)                         outputs of T trials as those of one
    probabilities(outputs)                    what a user calls the prediction
    COLUMNS, row(probabilities, names)        what predictions say of an image

`outputs` are what the head gives, `targets` what the task's sources have as `labels`,
both with a leading axis B. Where pixels have targets, the last four are instead

    counts_of(labels, targets, num_classes)   of the pixels of an image, which add up
    score(counts)                             -> every score by name, or None

Step, loop, sweeps and reports know a score by these names
alone. A new kind of task is one file and one line in `OBJECTIVES`.
"""

from collections.abc import Callable
from types import ModuleType

from vpt_jax.objectives import classification, segmentation

OBJECTIVES: dict[str, ModuleType] = {
    "classification": classification,
    "segmentation": segmentation,
}


def validation(objective: ModuleType) -> Callable[[dict], float]:
    """A key that sorts records by their validation score, the best highest."""
    sense = 1 if objective.HIGHER_IS_BETTER else -1
    return lambda record: sense * record[f"val_{objective.METRIC}"]
