"""Where and how runs were made, as their folders tell."""

import json

import pytest
from reports import fakes
from reports.fakes import write_result

from vpt_jax.reports import provenance
from vpt_jax.reports.collect import collect

CPU = {"model": "EPYC", "cores": 2}


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"devices": ["cpu"], "cpu": CPU}, "EPYC, 2 cores"),
        ({"devices": ["NVIDIA H200"] * 2, "cpu": CPU}, "2 x NVIDIA H200"),
        ({"devices": ["cpu"]}, "1 x cpu"),  # of an earlier version
        (None, "-"),
    ],
)
def test_where(tmp_path, environment, where):
    write_result(tmp_path / "a", "linear", "dtd", 80.0)
    if environment is not None:
        (tmp_path / "a" / "environment.json").write_text(json.dumps(environment))
    [run] = collect(tmp_path)[0]
    assert provenance.where(run) == where


def test_trials_runs_and_time(tmp_path):
    write_result(tmp_path / "a", "linear", "dtd", 80.0)
    write_result(tmp_path / "b", "vpt-deep", "dtd", 80.0, sweep=fakes.SWEEP)
    for unit, count in (("00", 6), ("01", 4)):
        folder = tmp_path / "b" / "units" / unit
        folder.mkdir(parents=True)
        rounds = [[10, count], [30, 2]]
        (folder / "plan.json").write_text(json.dumps({"rounds": rounds}))
    config = {"optim": {"head_start": "fitted"}}
    (tmp_path / "b" / "final").mkdir()
    (tmp_path / "b" / "final" / "config.json").write_text(json.dumps(config))
    table = provenance.table(collect(tmp_path)[0])
    rows = {r[0]: dict(zip(table.header, r, strict=True)) for r in table.rows}
    assert (rows["linear"]["grid"], rows["linear"]["time [min]"]) == ("", "0.2")
    assert rows["vpt-deep"]["grid"] == "10 x 10, 4 x 30"
    assert (rows["linear"]["head"], rows["vpt-deep"]["head"]) == ("", "fitted")
    assert rows["vpt-deep"]["runs"] == "2 x 100"
    assert rows["vpt-deep"]["time [min]"] == "0.3"  # 5 s of the grid, 12 s of the runs
    assert table.note.startswith("Of a sweep every point")
    total = "In all 4 runs and, to choose their settings, 2 trials, in 0.5 min."
    assert total in table.note
