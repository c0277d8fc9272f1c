"""The TensorFlow 1 bilinear resize in both forms, and the normalisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.data import preprocess
from vpt_jax.errors import UserError

SIZES = [(32, 32, 224), (8, 8, 32), (375, 500, 224), (7, 5, 3)]  # h, w -> size


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_the_formula(image, size, y, x):
    """One output pixel in float64, straight from the definition of the resize."""
    height, width, _ = image.shape
    v, u = y * height / size, x * width / size
    top, left = int(v), int(u)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = v - top, u - left
    pixels = image.astype(np.float64)
    above = (1 - dx) * pixels[top, left] + dx * pixels[top, right]
    below = (1 - dx) * pixels[bottom, left] + dx * pixels[bottom, right]
    return (1 - dy) * above + dy * below


def test_matrix_by_hand_upsampling():
    expected = [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
    matrix = preprocess.legacy_bilinear_matrix(2, 4)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_matrix_by_hand_downsampling_takes_every_other_pixel():
    # coordinates 0 and 2: no half-pixel shift, no antialiasing
    np.testing.assert_array_equal(
        preprocess.legacy_bilinear_matrix(4, 2), [[1, 0, 0, 0], [0, 0, 1, 0]]
    )
    np.testing.assert_array_equal(
        preprocess.legacy_bilinear_matrix(3, 2), [[1, 0, 0], [0, 0.5, 0.5]]
    )


def test_resize_by_hand():
    image = np.repeat(np.array([[[0], [100]], [[200], [40]]], np.uint8), 3, axis=-1)
    expected = [
        [0, 50, 100, 100],
        [100, 85, 70, 70],
        [200, 120, 40, 40],
        [200, 120, 40, 40],
    ]
    for channel in range(3):
        resized = preprocess.resize_host(image, 4)[..., channel]
        np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_both_forms_agree_with_the_formula(height, width, size):
    image = noise(height, width)
    host = preprocess.resize_host(image, size)
    resize = jax.jit(preprocess.resize_device, static_argnums=1)
    device = resize(jnp.stack([image, image[::-1]]), size)
    assert host.dtype == np.float32 and host.shape == (size, size, 3)
    assert device.dtype == jnp.float32 and device.shape == (2, size, size, 3)
    np.testing.assert_allclose(device[0], host, rtol=0, atol=1e-3)
    flipped = preprocess.resize_host(image[::-1], size)
    np.testing.assert_allclose(device[1], flipped, rtol=0, atol=1e-3)
    # A coordinate near 500 has 3e-5 of rounding in float32, up to 255 grey levels each.
    atol = 1e-3 if max(height, width) < 100 else 2e-2
    for y, x in np.random.default_rng(1).integers(0, size, (50, 2)):
        np.testing.assert_allclose(
            host[y, x], by_the_formula(image, size, y, x), rtol=0, atol=atol
        )
    corner = by_the_formula(image, size, size - 1, size - 1)
    np.testing.assert_allclose(host[-1, -1], corner, rtol=0, atol=atol)


def test_an_image_of_the_right_size_is_untouched():
    image = noise(6, 6)
    np.testing.assert_array_equal(preprocess.resize_host(image, 6), image)
    resized = preprocess.resize_device(jnp.asarray(image)[None], 6)
    assert resized.dtype == jnp.float32
    np.testing.assert_array_equal(resized[0], image)


def test_presets_by_hand():
    images = jnp.array([0.0, 127.5, 255.0])[None, :, None, None] * jnp.ones(
        (1, 3, 1, 3)
    )
    inception = preprocess.normalize(images, preprocess.get_preset("inception"))
    np.testing.assert_allclose(inception[0, :, 0, 1], [-1, 0, 1], atol=1e-6)
    vpt = preprocess.normalize(images, preprocess.get_preset("vpt"))
    np.testing.assert_allclose(
        vpt[0, 0, 0], [-2.117904, -2.035714, -1.804444], atol=1e-5
    )
    np.testing.assert_allclose(vpt[0, 2, 0], [2.248908, 2.428571, 2.64], atol=1e-5)


PILLOW_PRESETS = ("vpt_fgvc", "noah", "v_petl")


def test_presets_by_name():
    presets = preprocess.PRESETS
    assert {name: p.resize for name, p in presets.items()} == {
        **{"vpt": "legacy", "inception": "legacy", "task_adaptation": "legacy"},
        **{"noah": "pil_bicubic", "v_petl": "pil_bilinear"},
        "vpt_fgvc": "pil_bilinear",
    }
    assert [p.name for p in presets.values() if p.augment or p.shorter] == ["vpt_fgvc"]
    images = jnp.full((1, 2, 2, 3), 51.0)
    plain = preprocess.normalize(images, presets["task_adaptation"])
    np.testing.assert_allclose(plain, 0.2, atol=1e-7)


@pytest.mark.parametrize("name", preprocess.PRESETS)
def test_resize_for_makes_what_the_device_needs(name):
    preset = preprocess.get_preset(name)
    image = noise(30, 41)
    resized = preprocess.resize_for(preset, image, 14)
    # 14 * 256 / 224 = 16 px; 16 * 41 / 30 = 21.9 px, rounded down
    assert resized.shape == ((16, 21, 3) if preset.shorter else (14, 14, 3))
    assert preprocess.view(preset, image, 14).shape == (14, 14, 3)
    assert resized.dtype == (np.uint8 if name in PILLOW_PRESETS else np.float32)
    if name not in PILLOW_PRESETS:
        np.testing.assert_array_equal(resized, preprocess.resize_host(image, 14))


@pytest.mark.parametrize(("size", "shorter"), [(224, 256), (384, 438), (448, 512)])
def test_shorter_sides_of_the_public_code(size, shorter):
    resized = preprocess.resize_for(
        preprocess.get_preset("vpt_fgvc"), noise(5, 2), size
    )
    assert resized.shape == (shorter * 5 // 2, shorter, 3)


def test_the_backbone_s_own_preset():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    own = preprocess.of_pretraining(mean, std, "bicubic 256", 224)
    assert (own.mean, own.std, own.resize) == (mean, std, "pil_bicubic")
    assert own.shorter == (256, 224) and not own.augment
    assert preprocess.view(own, noise(20, 10), 14).shape == (14, 14, 3)
    square = preprocess.of_pretraining(mean, std, "bilinear", 384)
    assert square.resize == "pil_bilinear" and square.shorter is None


def test_centre_crop_by_hand(monkeypatch):
    def corner(height, width):
        """Of the square of 14 px that is cut from an image of this size."""
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        image = np.stack([rows, columns, rows * 0], axis=-1)
        monkeypatch.setattr(preprocess, "resize_for", lambda *_: image)
        found = preprocess.view(preprocess.get_preset("vpt_fgvc"), image, 14)
        assert found.shape == (14, 14, 3)
        assert (found[-1, -1] - found[0, 0]).tolist() == [13, 13, 0]
        return found[0, 0, :2].tolist()

    # (16 - 14) / 2 = 1 and (21 - 14) / 2 = 3.5, rounded to the even 4
    assert corner(16, 21) == [1, 4]
    # (19 - 14) / 2 = 2.5, rounded to the even 2
    assert corner(14, 19) == [0, 2]


def test_pillow_kernels_by_hand():
    # Halving: the antialiased triangle spans 4 pixels with weights 1 3 3 1 of 8.
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = 80
    bilinear = preprocess.resize_for(preprocess.get_preset("v_petl"), image, 2)
    # of the first pixel 3 of the 4 are inside: (1 x 80) / 7 after normalising
    assert bilinear[0, :, 0].tolist() == [11, 69]
    bicubic = preprocess.resize_for(preprocess.get_preset("noah"), image, 2)
    assert bicubic[0, 0, 0] < bilinear[0, 0, 0] and bicubic[0, 1, 0] > 69


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match="'imagenet'.*vpt, inception"):
        preprocess.get_preset("imagenet")
