"""A report replaces what a report wrote, and nothing else."""

import json
import threading

import pytest
from reports.fakes import write_result

from vpt_jax.errors import UserError
from vpt_jax.reports import outputs, report


@pytest.fixture
def folder(tmp_path):
    """Of a report on two runs of one task."""
    write_result(tmp_path / "a", "linear", "digits", 90.0)
    write_result(tmp_path / "b", "full", "digits", 80.0)
    report.write(tmp_path)
    return tmp_path / "report"


def files(folder):
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return found - {"files.json", ".lock"}


def listed(folder):
    return set(json.loads((folder / "files.json").read_text())["files"])


def test_only_files_of_the_last_report_are_removed(folder):
    assert files(folder) == listed(folder) > {"figures/tasks_vit_b16.png"}
    (folder / "notes.txt").write_text("mine")
    (folder / "figures" / "own.png").write_bytes(b"mine")
    (folder.parent / "b" / "result.json").unlink()
    report.write(folder.parent)
    assert "figures/tasks_vit_b16.png" not in files(folder)
    assert files(folder) == listed(folder) | {"notes.txt", "figures/own.png"}
    (folder / "figures" / "own.png").unlink()
    report.write(folder.parent)
    assert not (folder / "figures").exists()


def test_a_run_named_report_is_not_touched(tmp_path):
    write_result(tmp_path / "report", "linear", "digits", 90.0)
    before = (tmp_path / "report" / "result.json").read_text()
    with pytest.raises(
        UserError, match="holds 'result.json', which no report wrote; re"
    ):
        report.write(tmp_path)
    assert files(tmp_path / "report") == {"result.json"}
    assert not (tmp_path / "report" / ".lock").exists()
    assert (tmp_path / "report" / "result.json").read_text() == before


def test_a_report_of_an_earlier_version_is_replaced(folder):
    (folder / "files.json").unlink()
    (folder / "figures" / "old.png").write_bytes(b"")
    report.write(folder.parent)
    assert files(folder) == listed(folder)
    assert "figures/old.png" not in files(folder)
    # ---- with anything else in it, it is not known whose it is
    (folder / "files.json").unlink()
    (folder / "tables" / "mine.xlsx").write_bytes(b"")
    with pytest.raises(UserError, match="holds 'tables/mine.xlsx'"):
        report.write(folder.parent)


def test_a_file_of_somebody_else_is_not_overwritten(folder):
    (folder / "figures" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="mine.png would be overwritten"):
        outputs.replace(folder, {"figures/mine.png": b"ours"})
    assert (folder / "figures" / "mine.png").read_bytes() == b"mine"
    assert (folder / "report.md").exists()


@pytest.mark.parametrize("name", ["../a/result.json", "/etc/x.csv", "notes.txt", 1])
def test_a_manifest_reaches_nothing_else(folder, name):
    (folder / "notes.txt").write_text("mine")
    content = json.loads((folder / "files.json").read_text())
    content["files"].append(name)
    (folder / "files.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="files.json lists"):
        report.write(folder.parent)
    assert (folder.parent / "a" / "result.json").exists()
    assert (folder / "notes.txt").exists()


def test_a_kill_on_the_way_leaves_only_listed_files(folder, monkeypatch):
    def kill(path, content, written=[]):  # noqa: B006
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(path, content))

    write = outputs.write_bytes
    monkeypatch.setattr(outputs, "write_bytes", kill)
    new = {f"figures/{k}.png": b"" for k in range(4)}
    with pytest.raises(KeyboardInterrupt):
        outputs.replace(folder, new)
    assert files(folder) < listed(folder)
    monkeypatch.undo()
    outputs.replace(folder, {"report.md": b"after"})
    assert files(folder) == listed(folder) == {"report.md"}


def test_several_writers_take_turns(tmp_path):
    """Each with files of its own: what is left is all of one of them."""
    folder = tmp_path / "report"
    contents = [
        {f"figures/{writer}-{n}.png": b"" for n in range(5)} for writer in range(8)
    ]
    threads = [
        threading.Thread(target=outputs.replace, args=(folder, content))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(folder) == listed(folder)
    assert files(folder) in [set(content) for content in contents]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "report").write_text("a file")
    write_result(tmp_path / "a", "linear", "digits", 90.0)
    with pytest.raises(UserError, match="no report wrote"):
        report.write(tmp_path)
    with pytest.raises(UserError, match="cannot be used"):
        outputs.replace(tmp_path / "report", {"report.md": b""})
