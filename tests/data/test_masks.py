"""Folders of scenes with masks, ADE20K's own layout, and what is wrong with masks."""

import numpy as np
import pytest
import scenes_folder
from PIL import Image

from vpt_jax import data, prepare
from vpt_jax.data.source import fingerprint
from vpt_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return scenes_folder.write(tmp_path / "scenes")


def get(folder, ignored=(scenes_folder.IGNORED,)):
    return data.get_task(f"masks:{folder}", None, ignored)


def test_images_bring_their_targets(folder):
    task = get(folder)
    assert task.kind == "segmentation" and task.num_classes == 3
    assert task.class_names(None) == scenes_folder.NAMES
    train = task.checked("train", None)
    image, mask = scenes_folder.scene(np.random.default_rng(0))
    [found] = train.read([0])
    np.testing.assert_array_equal(found[..., :3], image)
    assert (found[0, :, 3] == 255).all() and (found[1:, :, 3] == mask[1:]).all()
    assert [len(task.checked(p, None)) for p in ("train", "val", "test")] == [4, 2, 3]
    assert len(task.checked("trainval", None)) == 6 and train.ids[0] == "s0"
    assert train.select([2, 0]).ids == ("s2", "s0")
    assert data.portable_name(f"masks:{folder}") == "masks:scenes"


def test_the_fingerprint_sees_the_masks(folder):
    before = fingerprint(get(folder).source("train", None))
    path = folder / "annotations" / "train" / "s1.png"
    mask = np.array(Image.open(path))
    mask[-1, -1] = 2
    Image.fromarray(mask).save(path)
    assert fingerprint(get(folder).source("train", None)) != before


def test_without_names_the_masks_are_counted(tmp_path):
    root = scenes_folder.write(tmp_path / "plain", names=())
    assert get(root).class_names(None) == ("0", "1", "2")


def test_parts_that_are_missing_are_made(tmp_path):
    """Of train and test, or of ADE20K's training and validation."""
    for name, parts in (("a", ("train", "test")), ("b", ("training", "validation"))):
        root = scenes_folder.write(tmp_path / name, (11, 2), parts)
        task = get(root)
        sizes = [len(task.source(p, None)) for p in ("train", "val", "test")]
        assert sizes == [9, 2, 2]
        ids = [set(task.source(p, None).ids) for p in ("train", "val")]
        assert not ids[0] & ids[1]


def test_a_wrong_mask_is_named(folder):
    path = folder / "annotations" / "test" / "s1.png"
    mask = np.array(Image.open(path))
    mask[3, 5] = 7
    Image.fromarray(mask).save(path)
    test = get(folder).source("test", None)
    wanted = "s1.png: number 7 in row 3, column 5 is no class; classes are 0 to 2, "
    with pytest.raises(UserError, match=wanted + "ignored are 11, 255"):
        test.read([0, 1])
    with pytest.raises(UserError, match="number 11 in row 0"):
        get(folder, ()).source("train", None).read([0])

    Image.fromarray(mask[:, 1:]).save(path)
    with pytest.raises(UserError, match="a mask of .* px for an image of"):
        test.read([1])
    Image.fromarray(np.dstack([mask] * 3)).save(path)
    with pytest.raises(UserError, match="its mode is RGB; a mask has one number"):
        test.read([1])
    path.unlink()
    with pytest.raises(UserError, match="s1.png has no mask of the same name"):
        get(folder).source("test", None)


def test_what_is_no_folder_of_scenes_is_refused(tmp_path, folder):
    with pytest.raises(UserError, match="images is not a folder; masks:PATH needs"):
        get(tmp_path / "nothing")
    with pytest.raises(UserError, match="numbers from 0 to 255"):
        get(folder, (256,))
    with pytest.raises(UserError, match="is for masks:PATH"):
        data.get_task("digits", None, (3,))


@pytest.fixture
def ade(tmp_path):
    """Two pairs in each part: 0 is other, 1 to 150 are classes."""
    root = tmp_path / "ADEChallengeData2016"
    scenes_folder.write(root, (12, 2), ("training", "validation"), names=())
    names = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.2\t9\t9\twall, partition"]
    names += [f"{n}\t0\t0\t0\tthing{n}" for n in range(2, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def test_ade20k_keeps_its_numbers(ade):
    task = data.get_task("ade20k")
    names = task.class_names(str(ade))
    assert len(names) == 150 and names[:2] == ("wall", "thing2")
    [found] = task.source("test", str(ade)).read([0])
    path = ade / "ADEChallengeData2016" / "annotations" / "validation"
    mask = np.array(Image.open(sorted(path.iterdir())[0]))
    np.testing.assert_array_equal(found[..., 3], np.where(mask == 0, 255, mask - 1))
    assert task.numbers is not None and task.numbers[:2] == (1, 2)
    assert prepare.status("ade20k", str(ade)).ready


def test_ade20k_says_where_it_comes_from(tmp_path):
    found = prepare.status("ade20k", str(tmp_path))
    assert not found.ready and "ADEChallengeData2016.zip" in found.what_to_do
    with pytest.raises(UserError, match="unpack it in this folder"):
        data.get_task("ade20k").source("train", str(tmp_path))
