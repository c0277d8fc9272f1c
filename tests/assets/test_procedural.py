"""Procedural images: fixed classes, reproducible and varied examples."""

import numpy as np
import pytest

from vpt_jax.assets import procedural
from vpt_jax.errors import UserError


def _flat(images):
    """Grey 8 x 8 thumbnails of zero mean and about unit length."""
    grey = images.mean(-1).reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
    grey = grey - grey.mean(1, keepdims=True)
    return grey / (np.linalg.norm(grey, axis=1, keepdims=True) + 1)


def test_shapes_types_and_range():
    images, labels = procedural.render(150, seed=0)
    assert images.shape == (150, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (150,) and labels.dtype == np.int32
    assert labels.min() >= 0 and labels.max() < procedural.NUM_CLASSES
    assert images.min() == 0 and images.max() > 240


@pytest.mark.parametrize("size", [16, 24, 48])
def test_other_sizes(size):
    images, _ = procedural.render(20, seed=0, image_size=size)
    assert images.shape == (20, size, size, 3)
    assert (images.std((1, 2)).max(1) > 1).all()


def test_same_arguments_same_images():
    first, second = (procedural.render(150, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seeds_differ():
    (images_a, labels_a), (images_b, labels_b) = (
        procedural.render(50, seed=seed) for seed in (0, 1)
    )
    assert (labels_a != labels_b).any()
    assert (images_a != images_b).any()


def test_glyph_classes_come_from_a_constant_seed():
    drawn = procedural._glyph_classes.__wrapped__()
    procedural.render(5, seed=11)
    np.random.seed(5)
    again = procedural._glyph_classes.__wrapped__()
    assert len(drawn.heading) == procedural.NUM_GLYPHS
    for a, b in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_class_means_the_same_under_every_seed():
    """Class means of one seed recognise another seed's images far above chance."""
    images, labels = procedural.render(6000, seed=0)
    unseen, truth = procedural.render(600, seed=1)
    means = np.zeros((procedural.NUM_CLASSES, 64))
    np.add.at(means, labels, _flat(images))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    accuracy = ((_flat(unseen) @ means.T).argmax(1) == truth).mean()
    # Chance is below 0.002; pixels alone must also not suffice.
    assert 0.03 < accuracy < 0.5


def test_every_class_renders_and_its_examples_differ():
    classes = np.arange(procedural.NUM_CLASSES, dtype=np.int32)
    rng = np.random.default_rng(0)
    one, two = (procedural._render_labels(rng, classes, 32) for _ in range(2))
    # Every image shows something, and no two examples are nearly the same.
    assert (one.std((1, 2)).max(1) > 1).all()
    assert (np.abs(one.astype(int) - two).mean((1, 2, 3)) > 1).all()


def test_glyph_is_drawn_inside_the_frame():
    labels = np.arange(procedural.NUM_GLYPHS)
    ink = procedural._draw_glyphs(np.random.default_rng(0), labels, 32)
    assert ink.min() == 0 and ink.max() == 1
    share = ink.mean((1, 2))
    assert share.min() > 0.01 and share.max() < 0.8
    rim = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], axis=1)
    assert rim.mean() < 0.3 * ink.mean()


def test_trace_follows_corners_turns_and_junctions():
    """An L whose second stroke, half a circle, starts where the L ends."""
    zeros = np.zeros((1, 3, 3), np.float32)
    length, turn, corner = zeros.copy(), zeros.copy(), zeros.copy()
    length[0, 0, :2], length[0, 1, 0] = 1, np.pi
    corner[0, 0, 1], turn[0, 1, 0] = np.pi / 2, np.pi
    last = procedural._POINTS - 1
    point = np.array([[0, last, 0]])
    none = np.zeros((1, 3), int)
    samples = np.array([[0, last, last + 1, 2 * last + 1]])
    heading = none.astype(np.float32)
    glyph = procedural.Glyphs(heading, length, turn, corner, none, point, none, samples)
    start, end, joined, final = procedural._trace(glyph, np.float32(0))[0]
    assert end - start == pytest.approx(1 + 1j, abs=0.06)
    assert joined == pytest.approx(end, abs=1e-5)
    assert final - joined == pytest.approx(2j, abs=0.06)


def test_ink_covers_the_area_of_a_disc():
    path = np.full((1, procedural._POINTS), 0.1 - 0.2j, np.complex64)
    ink = procedural._ink(path, np.full(path.shape, 0.4, np.float32), 64)
    assert ink.mean() * 4 == pytest.approx(np.pi * 0.4**2, rel=0.01)


def test_coarsen_averages_areas_then_interpolates():
    matrix = procedural._coarsen(8, 32)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    step = (matrix @ np.repeat(np.arange(8.0), 4)).astype(np.float32)
    expected = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    np.testing.assert_allclose(step, expected, atol=1e-5)


def test_outlines_are_those_of_the_shapes():
    outlines = procedural._outlines()
    assert np.isfinite(outlines).all() and (outlines > 0).all()
    assert outlines.max() <= 1 + 1e-5
    triangle, octagon, circle = outlines[0], outlines[5], outlines[9]
    assert triangle.min() == pytest.approx(np.cos(np.pi / 3), abs=0.01)
    assert octagon.min() == pytest.approx(np.cos(np.pi / 8), abs=0.01)
    np.testing.assert_allclose(circle, 1, atol=2e-3)


def test_too_small_a_size_is_refused():
    with pytest.raises(UserError, match="image_size is 8.*at least 16"):
        procedural.render(1, seed=0, image_size=8)


@pytest.mark.parametrize("things", [2, 3])
def test_a_scene_shows_more_than_its_class(things):
    """Some images stay as they are without scenes; the others are painted upon."""
    plain, labels = procedural.render(120, seed=4)
    scenes, same = procedural.render(120, seed=4, things=things)
    np.testing.assert_array_equal(labels, same)
    changed = (scenes != plain).any(axis=(1, 2, 3))
    assert 0.45 < changed.mean() < 0.75
    again, _ = procedural.render(120, seed=4, things=things)
    np.testing.assert_array_equal(again, scenes)


def test_ink_lies_in_the_half_that_is_asked_for():
    rng = np.random.default_rng(0)
    put = procedural._put(rng, np.ones((40, 16, 16), np.float32), np.arange(40) < 20)
    columns = put.max(1)
    assert (columns.sum(1) == 16).all()
    assert (columns[:20, 18:] == 0).all() and (columns[20:, :14] == 0).all()


def test_scenes_need_room():
    with pytest.raises(UserError, match="at least 32 pixels"):
        procedural.render(2, seed=0, image_size=16, things=3)
