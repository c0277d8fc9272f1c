"""Crops and flips: which places they reach, and that both forms are the same."""

import jax
import jax.numpy as jnp
import numpy as np

from vpt_jax.data import augment

cut = jax.jit(augment.cut_device, static_argnums=3)
draw = jax.jit(augment.draw)


def numbered(height, width, mark=0):
    """An image whose pixels tell their row, their column and the image."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.full_like(rows, mark)], axis=-1)


def test_every_place_is_reached_and_half_are_mirrored():
    images = augment.pack([numbered(6, 7)] * 2000)
    index = jnp.arange(2000)
    found = np.asarray(cut(images, index, draw(1, 0, index), 4))
    flipped = found[:, 0, 0, 1] > found[:, 0, -1, 1]
    assert 0.45 < flipped.mean() < 0.55
    whole = np.where(flipped[:, None, None, None], found[:, :, ::-1], found)
    corners = whole[:, 0, 0, :2]
    counts = np.zeros((3, 4), int)
    np.add.at(counts, tuple(corners.T), 1)
    assert counts.min() > 100 and counts.sum() == 2000
    # a window of the image, not something else
    steps = np.arange(4)
    rows = (corners[:, :1] + steps)[:, :, None]
    columns = (corners[:, 1:] + steps)[:, None]
    np.testing.assert_array_equal(whole[..., 0], np.broadcast_to(rows, (2000, 4, 4)))
    np.testing.assert_array_equal(whole[..., 1], np.broadcast_to(columns, (2000, 4, 4)))
    # where it lies and whether it is mirrored are independent
    assert 0.4 < flipped[corners[:, 1] == 0].mean() < 0.6


def test_what_is_drawn_depends_on_seed_epoch_and_image_only():
    index = jnp.array([3, 0, 2])
    base = draw(1, 5, index)
    np.testing.assert_array_equal(draw(1, 5, index[::-1])[::-1], base)
    np.testing.assert_array_equal(draw(jnp.uint32(1), 5, jnp.arange(4))[index], base)
    assert (np.asarray(draw(2, 5, index)) != base).all()
    assert (np.asarray(draw(1, 6, index)) != base).all()
    assert len(np.unique(base)) == 9


def test_device_and_host_cut_the_same_squares_of_images_of_any_size():
    sizes = [(5, 9), (8, 4), (4, 4), (4, 31), (6, 6)]
    images = [numbered(*size, mark) for mark, size in enumerate(sizes)]
    packed = augment.pack(images)
    assert packed.starts.tolist() == [0, 45, 77, 93, 217]
    for epoch in range(20):
        index = np.array([4, 0, 3, 1, 2])
        drawn = np.asarray(draw(0, epoch, index))
        found = cut(packed, index, drawn, 4)
        assert found.dtype == jnp.uint8
        for square, number, numbers in zip(found, index, drawn, strict=True):
            assert (square[..., 2] == number).all()
            expected = augment.cut_host(images[number], numbers, 4)
            np.testing.assert_array_equal(square, expected)
    edges = np.float32([[0, 0, 0.5], [1 - 2**-24, 1 - 2**-24, 0.5]])
    found = cut(packed, np.array([3, 3]), edges, 4)
    assert found[:, 0, 0, 1].tolist() == [0, 27]
