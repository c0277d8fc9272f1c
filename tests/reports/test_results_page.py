"""docs/results.md is what the report writes from the records beside it."""

import pathlib
import shutil

import pytest

from vpt_jax import tuned
from vpt_jax.reports import report, settings

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_and_the_settings_follow_from_the_records(tmp_path):
    records, page = tmp_path / "records", tmp_path / "results.md"
    ignored = shutil.ignore_patterns("report")  # of one written in place
    shutil.copytree(ROOT / "docs/results/records", records, ignore=ignored)
    report.write(records, page=page)
    assert page.read_text() == (ROOT / "docs/results.md").read_text()
    assert names(tmp_path / "results/figures") == names(ROOT / "docs/results/figures")
    settings.add(records, found := tmp_path / "tuned.csv")
    assert set(tuned.read(found)) <= set(tuned.read(ROOT / "configs/tuned.csv"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())
