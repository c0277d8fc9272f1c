"""What is looked at of an image: how many windows of which sizes."""

import numpy as np
import pytest

from vpt_jax.data.windows import Inference, View, views

SLIDE, WHOLE = Inference(), Inference("whole")


def windows_of(view: View):
    return view.window, view.down.starts, view.along.starts


def test_windows_slide_over_the_longer_side():
    [view] = views(60, 100, 32, 8, SLIDE, False)
    # 60 x 100 to 32 x 53; every 21 px, the last one shifted back.
    assert windows_of(view) == (32, (0,), (0, 21))
    [square] = views(500, 500, 32, 8, SLIDE, False)
    assert windows_of(square) == (32, (0,), (0,))
    [whole] = views(60, 100, 32, 8, WHOLE, False)
    assert windows_of(whole) == (32, (0,), (0,)) and whole.along.resized == 32


def test_several_scales_are_mirrored_and_small_windows_shrink():
    found = views(32, 64, 32, 8, SLIDE, True)
    assert len(found) == 12
    sizes = [view.window for view in found[::2]]
    assert sizes == [16, 24, 32, 32, 32, 32]
    assert [view.down.resized for view in found[::2]] == [16, 24, 32, 40, 48, 56]
    assert not found[0].along.mirrored and found[1].along.mirrored


@pytest.mark.parametrize("extents", [(20, 45), (45, 20), (8, 8)])
@pytest.mark.parametrize("inference", [SLIDE, WHOLE])
def test_what_every_window_says_alike_every_pixel_gets(extents, inference):
    """The matrices of all windows add up to 1: where they overlap, a mean."""
    for view in views(*extents, 16, 4, inference, True):
        down, along = view.back(5)
        ones = np.einsum("nyi,nxj->yx", down, along)
        np.testing.assert_allclose(ones, np.ones(extents), atol=1e-4)


def test_a_mirrored_view_is_that_of_the_mirrored_image():
    image = np.random.default_rng(0).integers(0, 255, (20, 45, 3)).astype(np.uint8)
    plain, mirrored = views(20, 45, 16, 4, SLIDE, True)[4:6]
    wanted = plain.cut(image[:, ::-1])
    np.testing.assert_allclose(mirrored.cut(image), wanted, atol=1e-2)
    for ours, theirs in zip(mirrored.back(5), plain.back(5), strict=True):
        flipped = ours if ours.shape[1] == 20 else ours[:, ::-1]
        np.testing.assert_allclose(flipped, theirs, atol=1e-5)
