"""A bank: each image its own task, tasks that come and go, none that harms another."""

import hashlib
import json

import jax
import numpy as np
import pytest
from exchange import made
from product import slow
from safetensors.numpy import load_file, save_file
from serving import exports

import vpt_jax
from vpt_jax import backbones, export
from vpt_jax.errors import UserError
from vpt_jax.serving import shelf as shelves

TASKS = {  # method, its options, image size, classes
    "deep": ("vpt_deep", {"length": 3}, 8, 10),
    "long": ("vpt_deep", {"length": 5}, 8, 20),
    "wide": ("vpt_deep", {"length": 3}, 8, 40),
    "shallow": ("vpt_shallow", {"length": 2}, 8, 3),
    "probe": ("linear", {}, 8, 10),
    "large": ("linear", {}, 16, 5),
    "low_rank": ("lora", {}, 8, 2),
    "biases": ("vpt_deep+bias", {"length": 3}, 8, 17),
    "whole": ("full", {}, 8, 10),
}


@pytest.fixture(scope="module")
def write(new_tiny, checkpoint, tmp_path_factory):
    """Writes an export of one of `TASKS`; returns its folder."""
    root = tmp_path_factory.mktemp("bank")

    def write(name, seed, called=None, source=checkpoint):
        method, options, size, classes = TASKS[name]
        config = new_tiny()
        config.backbone.checkpoint, config.image_size = str(source), size
        config.method = {"name": method, **options}
        folder = root / (called or name)
        names = exports.names(folder.name, classes)
        return exports.write(folder, config, names, seed)

    return write


@pytest.fixture(scope="module")
def folders(write):
    return {name: write(name, seed) for seed, name in enumerate(TASKS)}


@pytest.fixture
def bank(checkpoint):
    return vpt_jax.Bank("vit_test", str(checkpoint), max_batch=4)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    sizes = rng.integers(7, 20, (30, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def compare(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_each_image_gets_what_its_task_alone_gives(bank, folders, images):
    """Of other methods, prompt lengths, image sizes and numbers of classes."""
    for name, folder in folders.items():
        bank.load(name, folder)
    names = [list(TASKS)[n % len(TASKS)] for n in range(len(images))]
    found = bank.predict(images, names)
    for name, folder in folders.items():
        own = [n for n, given in enumerate(names) if given == name]
        alone = vpt_jax.load(folder).predict([images[n] for n in own])
        compare([found[n] for n in own], alone)
        assert alone.std() > 1e-3


@pytest.mark.parametrize(
    "backbone", ["tiny_dinov3", slow("tiny_pe"), slow("tiny_eva02")]
)
def test_tasks_on_rotary_families(backbone, tmp_path, monkeypatch, images):
    monkeypatch.setitem(backbones.CONFIGS, backbone, made.BACKBONES[backbone])
    folders = {
        name: made.make(tmp_path, name, backbone, "prompt+lora-2", seed, length=2)
        for seed, name in enumerate(("one", "other"))
    }
    checkpoint = made.checkpoint(tmp_path, backbone)
    bank = vpt_jax.Bank(backbone, str(checkpoint), precision="float32", max_batch=4)
    for name, folder in folders.items():
        bank.load(name, folder)
    found = bank.predict(images[:4], ["one", "other", "other", "one"])
    for name, rows in (("one", (0, 3)), ("other", (1, 2))):
        alone = vpt_jax.load(folders[name], precision="float32")
        wanted = alone.predict([images[n] for n in rows])
        compare([found[n] for n in rows], wanted)
        assert wanted.std() > 1e-3


def test_the_backbone_is_in_memory_once(bank, folders):
    for name, folder in folders.items():
        bank.load(name, folder)
    held = {}
    for task in bank.tasks.values():
        for leaf in jax.tree.leaves(task.shelf._frozen):
            held[leaf.unsafe_buffer_pointer()] = leaf.nbytes
    whole = jax.tree.leaves(bank._loaded[8, True].params)
    positions = 16 * (16 + 1) * 4  # of images of 16 px
    assert sum(held.values()) == sum(leaf.nbytes for leaf in whole) + positions


def test_a_task_that_comes_later_compiles_nothing(
    bank, folders, write, images, compilations
):
    later = write("deep", 77, "later")
    bank.load("deep", folders["deep"])
    bank.compile()
    bank.predict(images[:1], ["deep"])
    assert compilations
    compilations.clear()
    bank.load("later", later)
    found = bank.predict(images[:7], ["deep", "later", "deep", *["later"] * 4])
    bank.unload("deep")
    bank.predict(images[:2], ["later"] * 2)
    assert not compilations
    compare(found[3:], vpt_jax.load(later).predict(images[3:7]))


def test_a_table_that_is_full_doubles_without_compiling_networks(
    bank, folders, write, images
):
    first = bank.load("deep", folders["deep"])
    bank.predict(images[:3], ["deep"] * 3)
    programs = dict(first.shelf._compiled)
    wanted = {}
    for seed in range(shelves.FIRST + 1):
        folder = write("deep", 100 + seed, f"more_{seed}")
        bank.load(folder.name, folder)
        wanted[folder.name] = folder
    assert len(first.shelf._table) == 2 * shelves.FIRST
    assert first.shelf._compiled == programs
    found = bank.predict(images[:3], ["more_0", f"more_{shelves.FIRST}", "deep"])
    last = vpt_jax.load(wanted[f"more_{shelves.FIRST}"])
    compare(found[1:2], last.predict(images[1:2]))


def test_a_task_that_is_held_stays_as_it_was(bank, folders, write, images):
    """What was asked before a task went, or was replaced, is answered as asked."""
    task = bank.load("deep", folders["deep"])
    asked = [(task, task.view(images[0]))]
    wanted = bank.run(asked)
    bank.unload("deep")
    for seed in range(3):
        bank.load("deep", write("deep", 50 + seed, f"other_{seed}"))
    np.testing.assert_array_equal(bank.run(asked)[0], wanted[0])
    shelf, slot = task.shelf, task.slot
    del task, asked
    assert slot in shelf._free


def test_rows_that_are_too_long_to_gather_run_task_by_task(
    bank, folders, write, images, monkeypatch
):
    monkeypatch.setattr(shelves, "GATHERED", 20_000)
    other = write("whole", 5, "other_whole")
    for name, folder in (("a", folders["whole"]), ("b", other)):
        assert not bank.load(name, folder).shelf.mixes
    assert bank.load("probe", folders["probe"]).shelf.mixes
    names = ["a", "b", "probe", "b", "a"]
    found = bank.predict(images[:5], names)
    one, two = vpt_jax.load(folders["whole"]), vpt_jax.load(other)
    compare([found[0], found[4]], one.predict([images[0], images[4]]))
    compare([found[1], found[3]], two.predict([images[1], images[3]]))


def broken(folder, to):
    """A copy of an export with one number that is not finite."""
    to.mkdir()
    tensors = load_file(folder / export.TENSORS)
    name = next(name for name in tensors if "prompt" in name)
    tensors[name][0, 0] = np.nan
    save_file(tensors, to / export.TENSORS)
    manifest = json.loads((folder / export.MANIFEST).read_text())
    digest = hashlib.sha256((to / export.TENSORS).read_bytes()).hexdigest()
    manifest["tuned_sha256"] = digest
    (to / export.MANIFEST).write_text(json.dumps(manifest))
    return to


def test_tensors_that_were_changed_are_refused(bank, folders, tmp_path):
    changed = broken(folders["deep"], tmp_path / "changed")
    own = folders["deep"] / export.MANIFEST
    (changed / export.MANIFEST).write_text(own.read_text())
    with pytest.raises(UserError, match="is not the file that its manifest was"):
        bank.load("deep", changed)
    assert not bank.tasks


def test_tensors_that_are_not_finite_are_refused(bank, folders, tmp_path, images):
    bank.load("deep", folders["deep"])
    bad = broken(folders["deep"], tmp_path / "bad")
    with pytest.raises(UserError, match=r"tokens.0 is not finite; tune it again"):
        bank.load("deep", bad)
    compare(
        bank.predict(images[:1], ["deep"]),
        vpt_jax.load(folders["deep"]).predict(images[:1]),
    )


def test_what_is_not_finite_in_one_task_does_not_reach_another(bank, folders, images):
    good = bank.load("deep", folders["deep"])
    bank.load("good", folders["deep"])
    names = ["good", "deep", "good", "good"]
    wanted = bank.predict(images[:4], names)
    shelf = good.shelf
    shelf._table = shelf._table.at[good.slot].set(np.nan)
    found = bank.predict(images[:4], names)
    assert np.isnan(found[1]).all()
    for n in (0, 2, 3):
        np.testing.assert_array_equal(found[n], wanted[n])


def test_what_is_of_another_backbone_is_refused(
    bank, folders, write, save_checkpoint, images
):
    bank.load("deep", folders["deep"])
    other = write("deep", 1, "stranger", save_checkpoint(1))
    with pytest.raises(UserError, match="stranger was tuned on a vit_test with sha256"):
        bank.load("stranger", other)
    strange = vpt_jax.Bank("vit_nano")
    with pytest.raises(UserError, match="on a vit_test, not on the vit_nano of this"):
        strange.load("deep", folders["deep"])
    assert list(bank.tasks) == ["deep"]
    assert not strange.tasks


def test_names_that_are_not_there_are_said(bank, folders, images):
    with pytest.raises(UserError, match="no task 'deep' is loaded; there are: none"):
        bank.predict(images[:1], ["deep"])
    bank.load("probe", folders["probe"])
    with pytest.raises(UserError, match="no task 'deep' is loaded; there are: probe"):
        bank.unload("deep")
    with pytest.raises(UserError, match="2 images for 1 names"):
        bank.predict(images[:2], ["probe"])
    assert bank.predict([], []) == []
