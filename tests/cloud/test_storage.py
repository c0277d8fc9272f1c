"""The storage room on a bucket: whole files, claims, copies, and a bad connection."""

import json
import threading
import time

import pytest
from cloud import server

from vpt_jax.errors import UserError
from vpt_jax.storage import cache, files, locks, paths

pytestmark = pytest.mark.cloud


@pytest.fixture
def folder(cloud):
    return paths.workdir("gs://test/run")


def test_files_appear_under_their_names(cloud, folder):
    files.write_json(folder / "a.json", {"x": 1})
    with files.whole(folder / "sub" / "b.bin") as local:
        local.write_bytes(b"12")
        assert cloud.names("") == ["run/a.json"]
    assert files.read_json(folder / "a.json") == {"x": 1}
    assert files.read_json(folder / "none.json") is None
    assert files.size_of(folder / "sub" / "b.bin") == 2
    assert [p.name for p in paths.every(folder)] == ["a.json", "b.bin"]
    files.remove(folder / "sub")
    files.remove(folder / "never")
    assert cloud.names("") == ["run/a.json"]


def test_what_fails_on_the_way_leaves_nothing(cloud, folder):
    with pytest.raises(KeyError), files.whole(folder / "a") as local:
        local.write_text("half")
        raise KeyError
    assert cloud.names("") == []


def test_lines_are_there_after_a_flush(cloud, folder):
    lines = files.Lines(folder / "metrics.jsonl", ['{"epoch": 1}'])
    lines.add('{"epoch": 2}')
    lines.flush()
    assert files.read_lines(folder / "metrics.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    again = files.Lines(folder / "metrics.jsonl", ['{"epoch": 1}'])
    again.flush()
    assert files.read_lines(folder / "metrics.jsonl") == [{"epoch": 1}]


def test_a_mirror_sends_what_has_grown(cloud, folder):
    mirror = files.Mirror(folder / "board")
    (mirror.local / "events").write_bytes(b"1")
    mirror.flush()
    first = cloud.buckets["test"]["run/board/events"].generation
    mirror.flush()
    assert cloud.buckets["test"]["run/board/events"].generation == first
    (mirror.local / "events").write_bytes(b"12")
    mirror.flush()
    assert cloud.content("run/board/events") == b"12"


def test_one_of_many_gets_a_claim(cloud, folder, monkeypatch):
    """All create the same number; whoever comes late meets a living one."""
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.2)
    got, refused, release = [], [], threading.Event()

    def work():
        try:
            with locks.held(folder / "run.lock", wait=False):
                got.append(1)
                release.wait(20)
        except locks.Busy as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while len(refused) < 3 and time.monotonic() < until:
        threading.Event().wait(0.05)
    release.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 3
    assert "gs://test/run is being worked on by process" in refused[0]
    with locks.held(folder / "run.lock", wait=False):  # it was let go of
        pass
    assert len(cloud.names("run/run.lock/")) == 1


def test_those_who_wait_take_turns(cloud, folder):
    inside, most = [], []

    def work():
        with locks.held(folder / "claim.lock", wait=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_a_claim_without_a_sign_is_taken_over(cloud, folder, monkeypatch, capsys):
    monkeypatch.setattr(locks, "STALE_SECONDS", 1.0)
    left = {"holder": "process 1 on gone", "token": "t", "renewed": 4}
    files.write_json(folder / "run.lock" / "000007", left)
    with locks.held(folder / "run.lock", wait=False):
        assert cloud.names("run/run.lock/") == ["run/run.lock/000008"]
    assert (
        "left by process 1 on gone, which is gone: taken over"
        in capsys.readouterr().err
    )
    assert json.loads(cloud.content("run/run.lock/000008"))["released"]


def test_who_was_passed_over_stops(cloud, folder, monkeypatch):
    """A process that did not answer for long must not write any more."""
    ended = threading.Event()
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(locks.os, "_exit", lambda code: ended.set())
    with locks.held(folder / "run.lock", wait=False):
        files.write_json(folder / "run.lock" / "000002", {"renewed": 0})
        assert ended.wait(10)


def test_a_lost_answer_is_no_other_process(cloud, folder, monkeypatch):
    """The claim was created, but the connection broke before that was said."""
    write = server.Server.write

    def lose(self, bucket, name, content, query):
        about = write(self, bucket, name, content, query)
        if "ifGenerationMatch" in query and not lost:
            lost.append(name)
            raise server.Answer(503, "lost")
        return about

    lost = []
    monkeypatch.setattr(server.Server, "write", lose)
    with locks.held(folder / "run.lock", wait=False):
        assert lost == ["run/run.lock/000001"] == cloud.names("run/run.lock/")


def test_who_was_slow_does_not_take_a_number_again(cloud, folder, monkeypatch):
    """Two others came and one went, between what it listed and what it created."""
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    listed, numbers = [], locks._numbers

    def late(of):
        found = numbers(of)
        if not listed:
            listed.append(found)
            busy = {"holder": "another", "token": "t", "renewed": 0}
            files.write_json(folder / "run.lock" / "000002", busy)
        return found

    monkeypatch.setattr(locks, "_numbers", late)
    monkeypatch.setattr(locks, "_is_renewed", lambda *_: True)
    with (
        pytest.raises(locks.Busy, match="another"),
        locks.held(folder / "run.lock", wait=False),
    ):
        pass
    assert cloud.names("run/run.lock/") == ["run/run.lock/000002"]


def test_a_copy_is_made_once_and_again_where_it_changed(cloud, folder, tmp_path):
    files.write_text(folder / "a.txt", "one")
    files.write_text(folder / "sub" / "b.txt", "two")
    first = cache.at_hand("gs://test/run")
    assert (first / "sub" / "b.txt").read_text() == "two"
    assert cache.at_hand("gs://test/run") == first
    files.write_text(folder / "a.txt", "new")
    second = cache.at_hand("gs://test/run")
    assert second != first and (second / "a.txt").read_text() == "new"
    assert cache.at_hand("gs://test/run/a.txt").read_text() == "new"
    assert cache.at_hand(tmp_path) == tmp_path


def test_a_copy_that_breaks_off_is_not_there(cloud, folder, monkeypatch, tmp_path):
    files.write_text(folder / "a.txt", "one")
    files.write_text(folder / "b.txt", "two")
    media = server.Handler._media

    def broken(self, there):
        if there.content == b"two":
            raise server.Answer(403, "no storage.objects.get access")
        return media(self, there)

    monkeypatch.setattr(server.Handler, "_media", broken)
    with pytest.raises(UserError, match="gs://test/run cannot be used"):
        cache.at_hand("gs://test/run")
    assert not list((tmp_path / "cache" / "buckets").iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gs://nowhere/x", "there is no bucket nowhere"),
        ("gs://read-only/x", "bucket read-only does not allow it"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_line(cloud, name, message):
    folder = paths.workdir(name)
    with (
        pytest.raises(UserError, match=f"{name} cannot be used: {message}"),
        locks.held(folder / "run.lock", wait=False),
    ):
        pass


def test_nothing_is_lost_on_a_bad_connection(cloud, folder):
    cloud.fail_every, cloud.drop_every = 10, 25
    with locks.held(folder / "run.lock", wait=False):
        for n in range(12):
            files.write_json(folder / f"{n}.json", {"n": n})
    found = [files.read_json(folder / f"{n}.json") for n in range(12)]
    assert found == [{"n": n} for n in range(12)]
