"""A run's folder: shared by all processes, held by one program, local, remembered."""

import json
import os
import pathlib

import jax
import pytest
from processes import holding

import vpt_jax
from vpt_jax import parallel
from vpt_jax.errors import UserError
from vpt_jax.runs import folder
from vpt_jax.runs.folder import RunFolder
from vpt_jax.storage import paths
from vpt_jax.training import inputs


def make(path, content=None):
    return RunFolder(path, "config.json", content or {}, "run", folder.difference)


@pytest.mark.parametrize("name", ["gs:/bucket/run", "s3://bucket/run", "ftp://a/b"])
def test_another_store_is_refused_before_anything_is_written(
    command, tiny_flags, tmp_path, monkeypatch, name
):
    flags = [arg.replace("configs/", f"{os.getcwd()}/configs/") for arg in tiny_flags]
    monkeypatch.chdir(tmp_path)
    for mode in ("train", "sweep", "eval", "predict", "report"):
        more = flags if mode in ("train", "sweep") else ["--images=x"]
        code, out, err = command(f"--mode={mode}", *more, "--workdir", name)
        [line] = err.splitlines()
        assert (code, out) == (2, "") and f"--workdir {name}: " in line
    assert not list(tmp_path.iterdir())


def test_a_windows_drive_or_a_plain_name_is_a_folder():
    assert paths.workdir("runs/a:b") == pathlib.Path("runs/a:b")
    assert paths.workdir("/data/x") == pathlib.Path("/data/x")


def test_two_programs_do_not_train_in_one_folder(tiny, tmp_path):
    """The second is refused while the first lives; nothing of it is logged."""
    with holding(tmp_path / "run" / "run.lock") as other:
        message = f"worked on by process {other} .*use another --workdir"
        with pytest.raises(UserError, match=message):
            vpt_jax.tune(tiny, tmp_path / "run")
        assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert vpt_jax.tune(tiny, tmp_path / "run")["status"] == "ok"


@pytest.fixture
def second_of_two(monkeypatch):
    """This process as the second of two, which agree on what this one says."""
    told = {}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(parallel, "agree", lambda *values: values)
    monkeypatch.setattr(parallel, "from_first", lambda read: told.get("nonce", "abc"))
    monkeypatch.setattr(folder, "SHARED_SECONDS", 0.0)
    return told


def test_processes_that_do_not_share_the_folder(second_of_two, tmp_path):
    """Process 0 has written into a folder of the same name on another machine."""
    message = "2 processes do not share --workdir .*this one .1, on .* does not; give"
    with pytest.raises(UserError, match=message):
        make(tmp_path / "mine")


def test_processes_that_share_the_folder(second_of_two, tmp_path):
    (tmp_path / "processes.json").write_text('{"nonce": "abc"}')
    make(tmp_path)
    second_of_two["nonce"] = "of a later start"
    with pytest.raises(UserError, match="do not share"):
        make(tmp_path)


def test_what_process_0_reads_is_what_all_branch_on(tmp_path, monkeypatch):
    """Not what this process may see of the files a moment earlier or later."""
    run = make(tmp_path)
    run.write("result.json", {"status": "ok"})
    assert run.result == {"status": "ok"}
    monkeypatch.setattr(parallel, "from_first", lambda read: {"of": "process 0"})
    assert run.result == {"of": "process 0"}
    assert run.decided("of", lambda: pytest.fail("decided already")) == "process 0"


@pytest.fixture
def places(monkeypatch):
    """Where the inputs of each training were kept."""
    seen, feed = [], inputs.feed

    def watched(setup, place, *rest):
        seen.append(place)
        return feed(setup, place, *rest)

    monkeypatch.setattr(inputs, "feed", watched)
    return seen


def test_where_inputs_are_kept_is_decided_once(tiny, tmp_path, places, monkeypatch):
    """A run that streamed goes on streaming when there is memory again."""
    from vpt_jax.progress import Bar
    from vpt_jax.training import loop

    class Killed(Exception):
        pass

    def kill(self, done, *_):
        raise Killed

    tiny.cache.images_gb = 0.0
    places, feed = [], inputs.feed
    monkeypatch.setattr(
        inputs,
        "feed",
        lambda setup, place, *a: places.append(place) or feed(setup, place, *a),
    )
    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHUNK_SECONDS", 0)
        patch.setattr(loop, "CHECKPOINT_SECONDS", -1)
        patch.setattr(Bar, "update", kill)
        with pytest.raises(Killed):
            vpt_jax.tune(tiny, tmp_path)
    decided = json.loads((tmp_path / "decided.json").read_text())
    assert decided == {"inputs": inputs.STREAMED}
    monkeypatch.setattr(inputs, "decide", lambda *_: inputs.RESIDENT)
    assert vpt_jax.tune(tiny, tmp_path)["status"] == "ok"
    assert places == [inputs.STREAMED] * 2


@pytest.mark.slow
def test_all_cohorts_of_a_sweep_read_from_one_place(
    tiny, tmp_path, places, monkeypatch
):
    from vpt_jax.sweeps.run import sweep

    tiny.sweep.base_lrs, tiny.sweep.weight_decays = (0.3, 0.1, 0.03), (0.0,)
    tiny.sweep.seeds, tiny.sweep.trials = (1,), 2
    answers = iter([inputs.STREAMED, inputs.RESIDENT])
    monkeypatch.setattr(inputs, "decide", lambda *_: next(answers))
    places, feed = [], inputs.feed
    monkeypatch.setattr(
        inputs,
        "feed",
        lambda setup, place, *a: places.append(place) or feed(setup, place, *a),
    )
    sweep(tiny, tmp_path)
    assert places == [inputs.STREAMED] * 2 + [inputs.RESIDENT]  # two cohorts, the final


def test_the_environment_names_the_processor():
    found = folder.environment()["cpu"]
    assert found["model"] and found["cores"] in range(1, (os.cpu_count() or 1) + 1)
