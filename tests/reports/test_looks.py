"""The picture shows each network's own attention, and what it takes images for."""

import numpy as np
import pytest
from reports.test_seen import examples_of, tuned_of

from vpt_jax.reports import looks
from vpt_jax.serving import attention


@pytest.mark.slow
def test_a_row_for_each_network():
    tuned = {"plain": tuned_of("linear"), "deep": tuned_of("prompt", length=2)}
    examples = examples_of(3)
    axes = np.array(looks.rows(tuned, examples).axes).reshape(3, 3)
    assert [row[0].get_ylabel() for row in axes[1:]] == list(tuned)
    for row, one in zip(axes[1:], tuned.values(), strict=True):
        taken_for = one.outputs(examples).argmax(1)
        for axis, found, label in zip(row, taken_for, examples.labels, strict=True):
            assert axis.get_xlabel() == "abc"[found]
            right = axis.xaxis.label.get_color() == looks.RIGHT
            assert right == (found == label)
        # ---- brightest where CLS looks most
        weights = np.asarray(attention.attention(one, examples)[:, 0]).reshape(3, 2, 2)
        shown = looks._light(weights[0].ravel(), 8)[..., 0]
        assert shown.max() == 1 and np.isclose(shown.min(), looks.DARK)
        corner = {0: (0, 0), 1: (0, -1), 2: (-1, 0), 3: (-1, -1)}
        assert shown[corner[int(weights[0].argmax())]] == 1
