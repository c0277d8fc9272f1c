"""What a run counts: its batches, and the images that it has really seen."""

import pytest
from training import tiny
from training.test_stream import ignore, photos

from vpt_jax import parallel
from vpt_jax.resolution import resolve
from vpt_jax.training import inputs, loop
from vpt_jax.training.state import Checkpoints


def test_images_seen_leaves_out_what_fills_up_a_batch():
    setup = tiny.make_setup()  # 10 images in batches of 4
    seen = [setup.images_seen(steps) for steps in range(7)]
    assert seen == [0, 4, 8, 10, 14, 18, 20]


def test_images_per_second_counts_images(tmp_path, monkeypatch):
    """10 images in batches of 4, two trials, three epochs: 60, not 72."""
    setup, rates = tiny.make_setup("linear"), []
    hyper = tiny.make_hyper([0.1, 0.1], [0.0, 0.0], [1, 2])
    outcome = loop.train(
        *(setup, parallel.make_mesh(2, 4), hyper, photos(), None, 0),
        *(inputs.CACHED, Checkpoints(tmp_path, lambda: None), ignore, ignore),
        lambda done, loss, score, rate: rates.append(rate),
    )
    images = outcome.images_per_second * outcome.train_seconds
    assert images == pytest.approx(60)


def test_a_batch_is_no_larger_than_the_training_set(new_tiny):
    """1,000 images in batches of 2,048: a step an epoch, of 1,000 rows."""
    config = new_tiny()
    config.batch_size = 2048
    config.optim.lr, config.optim.base_lr = None, 1.0
    experiment = resolve(config)
    setup = experiment.make_setup(experiment.data.training().labels)
    assert (setup.batch_size, setup.steps_per_epoch) == (1000, 1)
    assert (experiment.batch_size, experiment.optimizer.lr) == (2048, 8.0)
