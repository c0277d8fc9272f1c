"""What is printed at the end of a run."""

import json

from reports import fakes
from reports.fakes import write_result

from vpt_jax.reports import summary


def printed(capsys, show, folder, top1, **more):
    write_result(folder, "linear", "digits", top1, (1, 2, 3)[: len(top1)], **more)
    result = json.loads((folder / "result.json").read_text())
    show(result | {"workdir": str(folder)})
    return " ".join(capsys.readouterr().out.split())


def test_failed_seeds_are_named(capsys, tmp_path):
    for k, show in enumerate((summary.show, summary.show_sweep)):
        more = {"sweep": fakes.SWEEP, "val_top1": 80.0}
        text = printed(capsys, show, tmp_path / str(k), [90.0, None, None], **more)
        assert "test top-1 │ 90.00 % (90.00, failed, failed)" in text
        assert "1 of 3 finished; failed: 2, 3" in text
        assert "validation top-1 │ 80.00 %" in text


def test_a_run_of_one_seed_is_one_number(capsys, tmp_path):
    text = printed(capsys, summary.show, tmp_path / "a", [90.0])
    assert "test top-1 │ 90.00 % │" in text and "seeds" not in text
    assert "validation" not in text


def test_another_metric_by_its_name(capsys, tmp_path):
    own = {
        "metric": "miou",
        "test_miou": 40.0,
        "test_miou_std": 1.0,
        "test_miou_per_seed": [39.0, 41.0],
        "val_miou": 42.0,
    }
    text = printed(capsys, summary.show, tmp_path / "a", [None, None], **own)
    assert "test mIoU │ 40.00 % +- 1.00 (39.00, 41.00)" in text
    assert "validation mIoU │ 42.00 %" in text and "top-1" not in text


def test_what_was_tuned_beside_it_is_shown_beside_it(capsys, tmp_path):
    write_result(tmp_path / "probe", "linear", "digits", [70.0], (1,))
    probe = json.loads((tmp_path / "probe" / "result.json").read_text())
    text = printed(capsys, summary.show, tmp_path / "a", [90.0], beside={"l": probe})
    table = text[text.index("method") :]
    assert "linear │ 70.00 % │ 1.00 %" in table and "linear │ 90.00 %" in table
    assert "result.json" in table and "figures/attention.png" not in table
    # ---- the picture is named where there is one
    folder = tmp_path / "a"
    (folder / "figures").mkdir()
    (folder / "figures" / "attention.png").touch()
    result = json.loads((folder / "result.json").read_text())
    summary.show(result | {"workdir": str(folder)})
    assert "figures/attention.png" in capsys.readouterr().out
