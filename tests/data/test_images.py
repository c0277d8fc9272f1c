"""Image files as arrays: depths of colour, and what is refused."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from vpt_jax.data import images
from vpt_jax.data.images import decode_image, read_image
from vpt_jax.errors import UserError

DEEP = np.array([[0, 257, 1000, 32768, 65279, 65535]], np.uint16)
SHALLOW = [0, 1, 4, 128, 254, 255]  # rounded, of 255 times the part of 65,535


def encoded(array, kind):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "dtype", "mode"),
    [
        ("PNG", "<u2", "I;16"),
        ("TIFF", "<u2", "I;16"),
        ("TIFF", ">u2", "I;16B"),
        ("TIFF", "<i4", "I"),
        ("PPM", "<u2", "I"),
    ],
)
def test_grey_of_16_bits_keeps_its_steps(kind, dtype, mode):
    content = encoded(DEEP.astype(dtype), kind)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == mode
    found = decode_image(content)
    assert found.dtype == np.uint8 and found.shape == (1, 6, 3)
    assert found[0].tolist() == [[value] * 3 for value in SHALLOW]


def test_grey_of_8_bits_and_of_one_is_as_it_is():
    shallow = np.array([SHALLOW], np.uint8)
    assert decode_image(encoded(shallow, "PNG"))[0, :, 1].tolist() == SHALLOW
    bits = encoded(shallow > 100, "PNG")
    assert decode_image(bits)[0, :, 1].tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[-1, 5]], np.int32), "grey values from -1 to 5"),
        (np.array([[0, 65536]], np.int32), "grey values from 0 to 65536"),
        (np.array([[0.0, 1.0]], np.float32), "floating-point"),
    ],
)
def test_grey_without_a_known_white_is_refused(array, expected):
    with pytest.raises(UserError, match=f"{expected}.*8 or 16 bits"):
        decode_image(encoded(array, "TIFF"))


def test_grey_where_white_is_zero_or_of_12_bits_is_refused():
    content = encoded(DEEP, "TIFF")
    entry = np.array([262, 3], "<u2").tobytes() + np.array([1, 1], "<u4").tobytes()
    assert content.count(entry) == 1
    white = entry[:8] + np.array([0], "<u4").tobytes()
    with pytest.raises(UserError, match="white is zero"):
        decode_image(content.replace(entry, white))
    depth = np.array([258, 3], "<u2").tobytes() + np.array([1, 16], "<u4").tobytes()
    assert content.count(depth) == 1
    twelve = depth[:8] + np.array([12], "<u4").tobytes()
    with pytest.raises(UserError, match="12 bits"):
        decode_image(content.replace(depth, twelve))


def test_endings_are_those_of_the_formats_that_are_opened():
    Image.init()
    for ending in images.SUFFIXES:
        assert Image.EXTENSION[ending] in images.FORMATS
    assert set(images.FORMATS) <= set(Image.OPEN)
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"} <= images.SUFFIXES


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PCX", "TGA"])
def test_other_formats_are_refused_whatever_the_ending(kind, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (16, 16), (1, 2, 3)).save(path, kind)
    with pytest.raises(UserError, match="photo.jpg: cannot be read as an image"):
        read_image(path)


def test_a_known_format_under_another_ending_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path, "PNG")
    assert read_image(path).tolist() == [[[1, 2, 3]] * 3] * 2


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_an_image_of_very_many_pixels_is_refused(action, tmp_path, monkeypatch):
    """Whatever the process does with Pillow's warning."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(images, "MAX_PIXELS", 100, raising=False)
    path = tmp_path / "large.png"
    Image.new("L", (10, 10)).save(path)
    assert read_image(path).shape == (10, 10, 3)
    for size in ((11, 10), (30, 10)):  # Pillow's warning and its error
        Image.new("L", size).save(path)
        with warnings.catch_warnings(), pytest.raises(UserError) as error:
            warnings.simplefilter(action, Image.DecompressionBombWarning)
            read_image(path)
        assert "large.png: cannot be read as an image" in str(error.value)
        assert "\n" not in str(error.value)


def test_the_limit_is_where_pillow_warns():
    assert images.MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_line_of_pixels_is_refused(tmp_path):
    """Its shorter side brought to 256 px, it would fill the memory."""
    path = tmp_path / "line.png"
    for size in ((20_100, 100), (100, 20_100), (60_000, 1)):
        Image.new("L", size).save(path)
        with pytest.raises(UserError, match="line.png.* 200 times"):
            read_image(path)
    Image.new("L", (20_000, 100)).save(path)
    assert read_image(path).shape == (100, 20_000, 3)


def test_damage_is_one_line(tmp_path):
    for content in (b"", b"no image", encoded(DEEP, "PNG")[:48]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match="a.png: cannot be read") as error:
            read_image(tmp_path / "a.png")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="cannot be read as an image"):
            decode_image(content)
