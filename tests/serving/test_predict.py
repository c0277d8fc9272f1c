"""Using a tuned model: `load`, `predict`, and image files."""

import csv
import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

import vpt_jax
from vpt_jax.errors import UserError
from vpt_jax.serving.evaluate import evaluate
from vpt_jax.serving.predict import predict_files


@pytest.fixture(scope="module")
def run(new_tiny, tmp_path_factory):
    """A finished run: (workdir, result)."""
    workdir = tmp_path_factory.mktemp("predict") / "run"
    return workdir, vpt_jax.tune(new_tiny(), workdir)


@pytest.fixture(scope="module")
def model(run):
    return vpt_jax.load(run[0])


@pytest.fixture
def photos(tmp_path):
    """Three images of different sizes and kinds, a broken one and a text."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (
        ("a.png", (8, 8, 3)),
        ("b.JPG", (20, 12)),
        ("more/c.png", (5, 30, 4)),
    ):
        format = "JPEG" if name.endswith("JPG") else "PNG"
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(
            folder / name, format
        )
    (folder / "broken.jpeg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def test_the_training_images_are_not_needed(run, model, tmp_path):
    shutil.copytree(run[0] / "export", tmp_path / "export")
    path = tmp_path / "export" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["task"] = "folder:/a/folder/that/is/not/here"
    path.write_text(json.dumps(manifest))
    images = [np.full((8, 8, 3), 99, np.uint8)]
    moved = vpt_jax.load(tmp_path / "export").predict(images)
    np.testing.assert_array_equal(moved, model.predict(images))


def test_predict_gives_a_row_of_probabilities_per_image(model):
    rng = np.random.default_rng(1)
    sizes = ((8, 8), (8, 8), (3, 40), (50, 21))
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    rows = model.predict(images)
    assert rows.shape == (4, 10) and rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-5)
    assert (rows > 0).all() and np.ptp(rows, axis=0).max() > 1e-4
    # Alone an image is resized on the device, among others on the host.
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_allclose(model.predict([image])[0], row, atol=1e-5)
    assert model.predict([]).shape == (0, 10)
    assert model.classes == tuple("0123456789")


def test_files_to_csv_and_json(model, photos, tmp_path, capsys):
    table = tmp_path / "new" / "out.csv"
    done, broken = predict_files(model, [str(photos)], table)
    assert (done, broken) == (3, [photos / "broken.jpeg"])
    assert "broken.jpeg" in capsys.readouterr().err
    with open(table, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "class", "probability"]
    paths = [str(photos / name) for name in ("a.png", "b.JPG", "more/c.png")]
    assert [row[0] for row in rows] == paths

    single = [str(photos / "b.JPG"), str(photos / "a.png")]
    assert predict_files(model, single, tmp_path / "out.json") == (2, [])
    entries = json.loads((tmp_path / "out.json").read_text())
    assert [entry["path"] for entry in entries] == single
    by_path = {path: (name, float(p)) for path, name, p in rows}
    for entry in entries:
        name, probability = by_path[entry["path"]]
        assert entry["class"] == name
        assert entry["probability"] == pytest.approx(probability, abs=1e-5)
    best = model.predict([np.asarray(Image.open(photos / "a.png"))])[0]
    name, probability = by_path[paths[0]]
    assert name == model.classes[best.argmax()]
    assert probability == pytest.approx(best.max(), abs=1e-5)


def test_hidden_files_and_folders_are_left_out_and_told(
    model, photos, tmp_path, capsys
):
    """As in training; what is named itself is read."""
    (photos / "broken.jpeg").unlink()
    for name in (".hidden.png", "more/.c.png", ".cache/a.png", "__MACOSX/b.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / "a.png", photos / name)
    (photos / ".DS_Store").write_text("no image, hidden or not")
    assert predict_files(model, [str(photos)], tmp_path / "a.csv") == (3, [])
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"{photos}: skipped 4 hidden files and folders"
    named = [str(photos / ".hidden.png"), str(photos / ".cache")]
    assert predict_files(model, named, tmp_path / "b.csv") == (2, [])
    assert capsys.readouterr().err == ""


def test_images_that_are_refused_are_skipped(model, photos, tmp_path, capsys):
    (photos / "broken.jpeg").unlink()
    Image.new("RGB", (8, 8)).save(photos / "script.jpg", "EPS")
    Image.new("1", (9_500, 9_500)).save(photos / "bomb.png")
    Image.new("1", (60_000, 1)).save(photos / "line.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        done, broken = predict_files(model, [str(photos)], tmp_path / "out.csv")
    assert done == 3
    assert [path.name for path in broken] == ["bomb.png", "line.png", "script.jpg"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"skipped {path}" for path in broken
    ]


def test_nothing_to_predict(model, photos, tmp_path):
    with pytest.raises(UserError, match="must end in .csv or .json"):
        predict_files(model, [str(photos)], tmp_path / "out.txt")
    with pytest.raises(UserError, match="none.png does not exist"):
        predict_files(model, [str(photos / "none.png")], tmp_path / "out.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image under .*empty; .*.png"):
        predict_files(model, [str(tmp_path / "empty")], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_only_broken_files(model, photos, tmp_path):
    """All are named, and the table has its header alone."""
    broken = photos / "broken.jpeg"
    found = predict_files(model, [str(broken)], tmp_path / "out.csv")
    assert found == (0, [broken])
    assert (tmp_path / "out.csv").read_text().strip() == "path,class,probability"


def test_the_command(command, run, photos, tmp_path):
    output = tmp_path / "out.csv"
    arguments = ["--mode=predict", "--workdir", run[0], "--output", output]
    code, out, err = command(*arguments, "--images", photos)
    assert code == 2 and out == f"3 images classified: {output}\n"
    assert str(photos / "broken.jpeg") in err
    assert err.splitlines()[-1] == "error: 1 of 4 files could not be decoded"
    assert len(output.read_text().splitlines()) == 4

    code, out, err = command(
        *arguments, "--images", photos / "a.png", photos / "more" / "c.png"
    )
    assert (code, err) == (0, "") and out.startswith("2 images classified")


# ---- what `load` takes and refuses


def test_the_export_is_enough(run, model, tmp_path):
    workdir, result = run
    copy = shutil.copytree(workdir / "export", tmp_path / "elsewhere")
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)
    expected = model.predict([image])
    for path in (copy, workdir / "export"):
        np.testing.assert_array_equal(vpt_jax.load(path).predict([image]), expected)
    scores = evaluate(vpt_jax.load(copy), tmp_path)
    assert scores["test_top1"] == result["test_top1"]
    assert scores["n_test"] == result["n_test"] == 50
    assert evaluate(model, tmp_path, test_examples=30)["n_test"] == 30


def test_the_backbone_must_be_the_one_it_was_tuned_on(
    run, model, checkpoint, save_checkpoint, tmp_path
):
    moved = shutil.copy(checkpoint, tmp_path / "moved.npz")
    image = np.zeros((8, 8, 3), np.uint8)
    again = vpt_jax.load(run[0], checkpoint=str(moved))
    np.testing.assert_array_equal(again.predict([image]), model.predict([image]))
    with pytest.raises(UserError, match="was tuned on a vit_test with sha256") as error:
        vpt_jax.load(run[0], checkpoint=str(save_checkpoint(1)))
    assert run[1]["checkpoint_sha256"] in str(error.value)


def test_damaged_exports(run, tmp_path):
    with pytest.raises(UserError, match="holds no manifest.json"):
        vpt_jax.load(tmp_path / "nowhere")
    copy = shutil.copytree(run[0] / "export", tmp_path / "copy")
    tensors = copy / "tuned.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-8])
    with pytest.raises(UserError, match="tuned.safetensors cannot be read"):
        vpt_jax.load(copy)
    tensors.write_bytes(content.replace(b"head.bias", b"head.bios"))
    with pytest.raises(UserError, match="other tensors .*head.bias.*head.bios"):
        vpt_jax.load(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is not valid JSON"):
        vpt_jax.load(copy)


def test_several_tasks_are_columns_of_one_table(run, model, tmp_path, command, photos):
    """Each as by itself; a file that cannot be decoded is left out."""
    other = shutil.copytree(run[0], tmp_path / "other")
    alone, both = tmp_path / "alone.csv", tmp_path / "both.csv"
    predict_files(model, [str(photos)], alone)
    flags = [f"--workdir={run[0]}", f"--workdir={other}", f"--output={both}"]
    code, _, error = command("--mode=predict", *flags, photos)
    assert code == 2
    assert "1 of 4 files could not be decoded" in error
    with open(alone) as one, open(both) as two:
        for wanted, row in zip(csv.DictReader(one), csv.DictReader(two), strict=True):
            assert row.pop("path") == wanted.pop("path")
            assert len(row) == 2 * len(wanted) > 0
            for name in ("run", "other"):
                assert row[f"{name} class"] == wanted["class"]
                found = float(row[f"{name} probability"])
                assert abs(found - float(wanted["probability"])) < 1e-5
