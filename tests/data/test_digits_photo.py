"""Digits upon photographs: what counts, what parts share, and what they must not."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from vpt_jax import data
from vpt_jax.data import digits_photo


@pytest.fixture(scope="module")
def parts():
    task = data.get_task("digits_photo")
    return {name: task.load(name, None) for name in ("train", "val", "test")}


def test_the_digits_are_those_of_the_plain_task(parts):
    plain = data.get_task("digits")
    for name, copies in (("train", 4), ("val", 4), ("test", 1)):
        part, digits = parts[name], plain.load(name, None)
        assert part.images.shape == (copies * len(digits), 32, 32, 3)
        assert part.images.dtype == np.uint8
        np.testing.assert_array_equal(part.labels, np.tile(digits.labels, copies))
        assert len(set(part.ids)) == len(part)
    assert parts["val"].ids[0] == "digits/0800/0"
    assert parts["val"].ids[-1] == "digits/0999/3"


def test_copies_differ_and_a_second_time_is_the_same(parts):
    images = parts["val"].images
    assert (images[:200] != images[200:400]).any(axis=(1, 2, 3)).all()
    digits_photo.render.cache_clear()
    again = data.get_task("digits_photo").load("val", None)
    np.testing.assert_array_equal(again.images, images)


def test_parts_of_the_photographs_are_never_shared():
    """Each column of a photograph belongs to one part, and every part sees both."""
    columns = np.arange(640)[None, :, None].repeat(427, 0).repeat(3, 2)
    owned = {
        name: [set(x[0, :, 0]) for x in digits_photo.strips([columns, columns], name)]
        for name in ("train", "val", "test")
    }
    assert {name: len(x) for name, x in owned.items()} == dict(train=6, val=2, test=2)
    every = [set.union(*x) for x in owned.values()]
    assert sum(map(len, every)) == len(set.union(*every)) == 640
    assert load_sample_images().images[0].shape == (427, 640, 3)


DIGIT = np.zeros((8, 8))
DIGIT[2:6, 2:6] = 1


def test_a_digit_stands_out_from_what_it_covers():
    rng = np.random.default_rng(0)
    for ground in (0.0, 0.4, 0.6, 1.0):
        painted = digits_photo.paint(rng, np.full((32, 32, 3), ground), DIGIT, 0)
        gap = np.abs(painted.mean(-1) - ground)
        low, high = digits_photo.CONTRAST
        assert low - digits_photo.TINT <= gap.max() <= high + digits_photo.TINT
        assert gap.min() < 0.01  # around it the ground is as it was
        assert (painted.mean(-1).max() > ground + 0.1) == (ground <= 0.5)


def test_a_digit_stays_in_its_half():
    rng = np.random.default_rng(0)
    ground = np.full((32, 32, 3), 0.5)
    for _ in range(50):
        left, right = (digits_photo.paint(rng, ground, DIGIT, x) for x in (0, 16))
        assert (left[:, 17:] == ground[:, 17:]).all()
        assert (right[:, :15] == ground[:, :15]).all()


def test_the_class_is_that_of_the_left_one(parts):
    """The left halves of a class look alike: its mean is nearest, more often than by
    chance, and that of the right halves is not."""
    train, test = parts["train"], parts["test"]
    for half, better in ((slice(0, 16), True), (slice(16, 32), False)):
        looks = [_edges(part.images[:, :, half]) for part in (train, test)]
        means = [looks[0][train.labels == digit].mean(0) for digit in range(10)]
        nearest = (looks[1] @ np.stack(means).T).argmax(1)
        assert ((nearest == test.labels).mean() > 0.16) == better


def _edges(images):
    """How bright each place differs from the mean, whatever is lighter."""
    grey = images.mean(-1).reshape(len(images), -1)
    grey = np.abs(grey - np.median(grey, axis=1, keepdims=True))
    grey -= grey.mean(1, keepdims=True)
    return grey / np.linalg.norm(grey, axis=1, keepdims=True)
