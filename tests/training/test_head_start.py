"""A head that is fitted before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.linear_model import LogisticRegression
from training import tiny as problem

import vpt_jax
from vpt_jax import parallel
from vpt_jax.errors import UserError
from vpt_jax.training import head_start, programs


def started(**changes):
    """(setup, the state before the first step of two seeds)."""
    setup = problem.make_setup(options={"length": 2}, **changes)
    hyper = problem.make_hyper([0.1, 0.1], [0.0, 0.0], [1, 2])
    mesh = parallel.make_mesh(2, setup.batch_size)
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    images, labels = problem.make_data()
    batches = lambda: iter([(setup.network.normalised(images), np.asarray(labels))])  # noqa: E731
    return setup, programs.initialise(setup, state, mesh, batches)


def test_the_head_is_a_probe_of_each_trial_s_own_features():
    setup, fitted = started(head_start="fitted")
    _, plain = started()
    graphdef, _, frozen, _ = setup.network.parts
    images, labels = problem.make_data()
    for t in range(2):
        own = jax.tree.map(lambda x, t=t: x[t], (fitted.trainable, fitted.stats))
        model = nnx.merge(graphdef, own[0], frozen, own[1])
        x = setup.network.normalised(images)
        features = np.asarray(model.prefix(x, model.num_pieces - 1), np.float64)
        scaled = (features - features.mean(0)) / features.std(0).mean()
        strength = 1 / (head_start.DECAY * len(labels))  # the sum over the images
        probe = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10)
        expected = probe.fit(scaled, labels).predict_proba(scaled)
        logits = np.asarray(model.head(jnp.asarray(features, jnp.float32)))
        found = np.exp(logits - logits.max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    heads = np.asarray(fitted.trainable["head"]["kernel"])
    assert np.abs(heads[0] - heads[1]).max() > 1e-3  # other prompts, other features
    np.testing.assert_array_equal(
        fitted.trainable["edits"]["prompt"]["prompts"]["tokens"][0],
        plain.trainable["edits"]["prompt"]["prompts"]["tokens"][0],
    )


def test_a_run_starts_from_it(tiny, tmp_path):
    tiny.optim.head_start, tiny.optim.lr = "fitted", 1e-6
    result = vpt_jax.tune(tiny, tmp_path)
    assert result["test_top1"] > 20  # guessing gives 10, a random head no more


def test_another_head_is_refused(tiny, tmp_path):
    tiny.method.name, tiny.method.length = "mlp-2", None
    tiny.optim.head_start = "fitted"
    with pytest.raises(UserError, match="fits a linear head; .*leave it random"):
        vpt_jax.tune(tiny, tmp_path)
