"""Which results a report is made of."""

import json

import pytest
from reports import fakes
from reports.fakes import write_result

from vpt_jax.errors import UserError
from vpt_jax.reports import report
from vpt_jax.reports.collect import collect, method_label


def test_of_several_runs_the_sweep_counts(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 90.0)
    write_result(tmp_path / "b", "linear", "digits", 80.0, (1,), sweep=fakes.SWEEP)
    (tmp_path / "b" / "plan.json").write_text("{}")
    write_result(tmp_path / "b" / "final", "linear", "digits", 10.0)
    write_result(tmp_path / "c", "vpt-deep", "digits", [None, None])
    found, left_out = collect(tmp_path)
    assert [(run.path.name, run.score) for run in found] == [("b", 80.0)]
    assert [line.split(":")[0][-1] for line in left_out] == ["a", "c"]
    assert "is used instead" in left_out[0] and "not finite" in left_out[1]


def test_of_several_runs_that_with_more_finished_seeds_counts(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", [90.0, None, None], (1, 2, 3))
    write_result(tmp_path / "b", "linear", "digits", 80.0)
    assert [run.path.name for run in collect(tmp_path)[0]] == ["b"]


def test_a_run_may_be_named_report_but_a_report_holds_no_runs(tmp_path):
    write_result(tmp_path / "report", "linear", "digits", 90.0)
    assert [run.path.name for run in collect(tmp_path)[0]] == ["report"]
    write_result(tmp_path / "sweep" / "a", "linear", "dtd", 90.0)
    report.write(tmp_path / "sweep")
    write_result(tmp_path / "sweep" / "report" / "figures" / "x", "full", "dtd", 1.0)
    found, _ = collect(tmp_path)
    assert {run.path.name for run in found} == {"report", "a"}


def test_a_folder_of_images_goes_by_its_own_name_where_that_is_one(tmp_path):
    for name, path in (("a", "/x/cats"), ("b", "/x/dogs/"), ("c", "/y/dogs")):
        write_result(tmp_path / name, "linear", f"folder:{path}", 90.0)
    tasks = [run.task for run in collect(tmp_path)[0]]
    assert sorted(tasks) == ["folder:/x/dogs/", "folder:/y/dogs", "folder:cats"]


def test_what_is_no_result(tmp_path):
    for content in ("null", '{"task": "dtd"}', '{"method": "linear"}'):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(UserError, match="not the result of a run"):
            collect(tmp_path)
    (tmp_path / "result.json").unlink()
    write_result(tmp_path / "a", "linear", "digits", 90.0, metric="miou")
    with pytest.raises(UserError, match="no 'test_miou'"):
        collect(tmp_path)


def test_an_older_result_does_not_name_its_metric(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 90.0, val_top1=80.0)
    assert "metric" not in json.loads((tmp_path / "a" / "result.json").read_text())
    [run] = collect(tmp_path)[0]
    assert (run.metric, run.score, run.std, run.sign) == ("top1", 90.0, 0.5, 1)
    assert (run.scores, run.validation, run.ensemble) == ([90.0, 90.0], 80.0, None)


def test_names_of_methods():
    assert method_label("prompt", {"deep": False}) == "vpt-shallow"
    assert method_label("mlp", {"mlp_layers": 3}) == "mlp-3"
    assert method_label("prompt+bias", {"deep": True}) == "vpt-deep+bias"
    assert method_label("adapter", {"reduction": 8}) == "adapter-8"
