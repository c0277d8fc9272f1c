"""Tasks that label pixels in a bank, beside such that classify."""

import jax
import numpy as np
import pytest
import scenes_folder
from serving import exports

import vpt_jax
from vpt_jax.config import base
from vpt_jax.serving.tasks import groups
from vpt_jax.training import pixels

SCENES = {  # method, its options, head, classes
    "scenes": ("vpt_deep", {"length": 3}, "linear", 3),
    "more": ("vpt_deep", {"length": 3}, "linear", 5),
    "decoded": ("bias", {}, "pup", 20),
}
SIZES = [(16, 16), (20, 33), (33, 20)]
POSITIONS = 16 * (16 + 1) * 4  # bytes of those of images of 16 px


@pytest.fixture(scope="module")
def write(new_tiny, checkpoint, tmp_path_factory):
    """Writes an export; returns its folder."""
    root = tmp_path_factory.mktemp("tasks")
    masks = scenes_folder.write(root / "data")

    def write(name, seed, like=None, several=False):
        method, options, head, classes = SCENES[like or name]
        config = base(f"masks:{masks}", method, "vit_test")
        config.data.ignored = (scenes_folder.IGNORED,)
        config.backbone.checkpoint, config.image_size = str(checkpoint), 16
        config.head, config.inference.several = head, several
        config.method = {"name": method, **options}
        config.data.preset = "v_petl" if head == "pup" else "vpt"
        return exports.write(root / name, config, exports.names(name, classes), seed)

    return write


@pytest.fixture(scope="module")
def folders(write, new_tiny, tmp_path_factory):
    """Of two tasks that label pixels, and of `digits`, which classifies."""
    root = tmp_path_factory.mktemp("digits")
    digits = exports.write(root / "digits", new_tiny(), exports.names("digits", 10), 9)
    return {"digits": digits, "scenes": write("scenes", 0), "more": write("more", 1)}


@pytest.fixture
def bank(checkpoint):
    return vpt_jax.Bank("vit_test", str(checkpoint), max_batch=2)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def logits_alone(model, windows):
    run = pixels.make_windows(model.network, model._mesh, windows.shape[1])
    return run(*model._tuned, model._frozen, windows)[0]


@pytest.mark.parametrize(
    "name", ["scenes", pytest.param("decoded", marks=pytest.mark.slow)]
)
def test_each_image_gets_what_its_task_alone_gives(bank, folders, write, images, name):
    """Of both kinds, in one call."""
    folders = {"digits": folders["digits"], name: folders.get(name) or write(name, 2)}
    for kind, folder in folders.items():
        bank.load(kind, folder)
    found = iter(bank.predict(images * 2, ["digits"] * 3 + [name] * 3))
    for folder in folders.values():
        alone = vpt_jax.load(folder).predict(images)
        for image, theirs in zip(images, alone, strict=True):
            ours = next(found)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
            assert ours.shape in (image.shape[:2], (10,)) and len(np.unique(ours)) > 1


@pytest.mark.parametrize(
    "names",
    [("scenes", "more"), pytest.param(("decoded", "other"), marks=pytest.mark.slow)],
)
def test_a_batch_mixes_windows_of_several_tasks(bank, folders, write, images, names):
    if "other" in names:
        folders = {
            "decoded": write("decoded", 2),
            "other": write("other", 4, "decoded"),
        }
    one, two = (bank.load(name, folders[name]) for name in names)
    assert one.shelf is two.shelf and one.shelf.mixes
    windows = np.concatenate([t.view(images[1]).windows[0][-1:] for t in (one, two)])
    mixed = one.shelf.run([one.slot, two.slot], windows)
    for row, task in enumerate((one, two)):
        [wanted] = logits_alone(vpt_jax.load(task.folder), windows[row : row + 1])
        own = mixed[row, ..., : len(task.classes)]
        np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-5)
        assert np.std(wanted) > 1e-2


@pytest.mark.slow
def test_several_scales_are_those_of_the_task_alone(bank, folders, write, images):
    folder = write("several", 3, like="scenes", several=True)
    task = bank.load("several", folder)
    assert task.shelf.sides == (8, 12, 16)
    bank.compile()
    bank.load("scenes", folders["scenes"])
    found = bank.predict(images * 2, ["scenes"] * 3 + ["several"] * 3)
    alone = [vpt_jax.load(of).predict(images) for of in (folders["scenes"], folder)]
    for ours, theirs in zip(found, [*alone[0], *alone[1]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_sizes_and_tasks_that_come_later_compile_nothing(
    bank, folders, write, images, compilations
):
    later = write("later", 7, like="scenes")
    bank.load("scenes", folders["scenes"])
    bank.compile()
    bank.predict([images[1]], ["scenes"])
    assert compilations
    compilations.clear()
    bank.load("later", later)
    others = [
        np.zeros((high, wide, 3), np.uint8) for high, wide in ((22, 36), (90, 55))
    ]
    found = bank.predict(others, ["later", "scenes"])
    assert [labels.shape for labels in found] == [(22, 36), (90, 55)]
    assert not compilations


def test_both_kinds_have_one_backbone(bank, folders):
    """Even positions, but for those of images of another size."""
    held = {}
    for name, folder in folders.items():
        task = bank.load(name, folder)
        for leaf in jax.tree.leaves(task.shelf._frozen):
            held[leaf.unsafe_buffer_pointer()] = leaf.nbytes
    of_digits = jax.tree.leaves(bank.task("digits").shelf._frozen)
    whole = sum(leaf.nbytes for leaf in of_digits)
    assert sum(held.values()) == whole + POSITIONS


def test_windows_wait_for_few_images_at_a_time(bank, folders):
    dense = bank.load("scenes", folders["scenes"])
    plain = bank.load("digits", folders["digits"])
    first, *rest = groups([dense, plain] * (pixels.GROUP + 1))
    assert first == list(range(1, 2 * pixels.GROUP + 2, 2))
    assert rest == [list(range(0, 2 * pixels.GROUP, 2)), [2 * pixels.GROUP]]
