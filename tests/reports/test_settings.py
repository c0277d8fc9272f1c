"""Winners of sweeps as rows of a table."""

import pytest
from reports import fakes
from reports.fakes import write_result

from vpt_jax import tuned
from vpt_jax.errors import UserError
from vpt_jax.reports import settings


def test_winners_are_added_or_replaced(tmp_path, command):
    runs, file = tmp_path / "runs", tmp_path / "tuned.csv"
    more = {"sweep": fakes.SWEEP, "val_top1": 81.23456, "batch_size": 128}
    write_result(runs / "a", "vpt-deep", "folder:/home/me/cats", 80.0, **more)
    write_result(runs / "b", "linear", "dtd", 80.0)  # not of a sweep
    length = {"variant": "P = 1", "variant_position": 0, "ablation": "Length"}
    variant = more | {"sweep": fakes.SWEEP | length}
    write_result(runs / "c", "vpt-deep", "dtd", 80.0, **variant)
    assert settings.add(runs, file) == 1
    [row] = tuned.read(file)
    assert row.place == ("folder:cats", "vpt-deep", "vit_b16", 224)
    assert (row.base_lr, row.weight_decay, row.options) == (1, 0, "deep=True length=10")
    assert (row.epochs, row.batch_size, row.val) == (100, 128, 81.2346)
    assert row.source == "2 trials in runs/a" and "/home" not in file.read_text()

    write_result(runs / "d", "linear", "pets", 80.0, **more)
    better = more | {"sweep": fakes.SWEEP | {"base_lr": 5.0}}
    (runs / "a" / "result.json").unlink()
    (runs / "a").rmdir()
    write_result(runs / "a", "vpt-deep", "folder:/cats", 80.0, **better)
    code, out, _ = command("--mode=report", f"--workdir={runs}", f"--tuned={file}")
    assert code == 0 and f"{file}: settings of 2 sweeps" in out
    assert [(r.task, r.base_lr) for r in tuned.read(file)] == [
        ("folder:cats", 5.0),
        ("pets", 1.0),
    ]
    (runs / "a" / "result.json").unlink()
    settings.add(runs, file)
    assert len(tuned.read(file)) == 2  # what is not there any more, stays


def test_what_cannot_be_added(tmp_path):
    write_result(tmp_path / "a", "linear", "dtd", 80.0)
    with pytest.raises(UserError, match="no finished sweep"):
        settings.add(tmp_path, tmp_path / "tuned.csv")
    other = tmp_path / "other.csv"
    other.write_text("mine")
    write_result(
        tmp_path / "b", "linear", "pets", 80.0, sweep=fakes.SWEEP, val_top1=1.0
    )
    with pytest.raises(UserError, match="no table of tuned settings"):
        settings.add(tmp_path, other)
    assert other.read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        settings.add(tmp_path, other / "tuned.csv")
