"""Random views of scenes: image and targets stay together, and follow from numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenes_folder

from vpt_jax import bilinear
from vpt_jax.data import augment, scenes

MEAN = (0.5, 0.25, 0.0)


def drawn(**given):
    """Numbers that change nothing, unless they are given by their place."""
    numbers = np.full(scenes.NUMBERS, 0.9, np.float32)
    numbers[0] = 1 / 3  # scale 1
    for place, value in given.items():
        numbers[int(place[1:])] = value
    return numbers


def test_targets_stay_with_the_image():
    rng = np.random.default_rng(0)
    numbers = np.asarray(augment.draw(3, 1, jnp.arange(40), scenes.NUMBERS))
    shown = 0
    for n in range(40):
        image, mask = scenes_folder.scene(rng)
        mask[0] = 255
        whole = np.dstack([image, mask])
        plain = numbers[n].copy()
        plain[scenes._COLOURS : scenes._COLOURS + 5] = 0.9  # no other colours
        view = scenes.crop(whole, plain, 10, MEAN)
        colours, targets = view[..., :3], view[..., 3]
        for label in range(3):
            here = colours[targets == label]
            shown += len(here)
            # Bilinear pixels at a border mix two regions; most are inside of one.
            if len(here) > 20:
                assert np.median(here.argmax(1)) == label
        again = scenes.crop(whole, plain, 10, MEAN)
        np.testing.assert_array_equal(view, again)
    assert shown > 1000


def test_what_is_smaller_is_padded_with_the_mean_and_no_target():
    image = np.full((10, 10, 4), 7, np.uint8)
    view = scenes.crop(image, drawn(_0=0.0), 16, MEAN)  # scale 0.5: 8 px
    assert (view[:8, :8] == 7).all()
    outside = np.ones((16, 16), bool)
    outside[:8, :8] = False
    np.testing.assert_allclose(view[outside][:, :3], [255 * np.array(MEAN)] * 192)
    assert (view[outside][:, 3] == 255).all()


def test_a_crop_of_one_class_is_drawn_again():
    image = np.zeros((8, 24, 4), np.uint8)
    image[:, 20:, 3] = 1  # of windows 8 wide, only those at the right show both
    image[..., 0] = np.arange(24)[None] * 10
    numbers = drawn()
    numbers[1 : scenes._PLACES] = 0.0  # all at the left, but for
    numbers[1 + 2 * 4 + 1] = 0.99  # the fifth
    view = scenes.crop(image, numbers, 8, MEAN)
    assert set(np.unique(view[..., 3])) == {0, 1}
    assert view[0, 0, 0] == 160
    numbers[1 + 2 * 4 + 1] = 0.0
    assert scenes.crop(image, numbers, 8, MEAN)[..., 3].max() == 0  # the last is taken


def test_mirror_and_scale():
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :4] = 10
    image[:, 4:] = 20
    plain = scenes.crop(image, drawn(), 8, MEAN)
    mirrored = scenes.crop(image, drawn(**{f"_{scenes._FLIP}": 0.1}), 8, MEAN)
    np.testing.assert_array_equal(plain, image)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    assert scenes.scaled((30, 20), 16, 0.0) == (12, 8)
    assert scenes.scaled((30, 20), 16, 1.0) == (48, 32)
    assert scenes.scaled((10, 100), 16, 1 / 3) == (6, 64)  # at most 4 times as long


@pytest.mark.parametrize("place", range(5))
def test_each_change_of_colour_is_one_of_half_of_the_views(place):
    image = np.random.default_rng(0).integers(60, 190, (6, 6, 3)).astype(np.uint8)
    numbers = np.full(9, 0.9, np.float32)
    np.testing.assert_array_equal(scenes.recoloured(image, numbers), image)
    numbers[place] = 0.1
    changed = scenes.recoloured(image, numbers)
    alone = place == 2  # whether contrast comes before or after the others
    assert (changed == image).all() == alone
    if place == 0:
        assert np.unique(changed.astype(int) - image).tolist() == [26]


def test_resampling_is_that_of_half_pixel_centres():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 7, 3)).astype(np.uint8)
    for size in ((9, 4), (5, 7), (13, 20)):
        rows, columns = bilinear.matrix(5, size[0]), bilinear.matrix(7, size[1])
        wanted = np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(np.float32))
        found = bilinear.resized(image, *size)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        shape = (*size, 3)
        other = jax.image.resize(image.astype(np.float32), shape, "bilinear", False)
        np.testing.assert_allclose(found, other, atol=1e-3)
    assert bilinear.nearest(4, 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
