"""Who is at work in a folder: one at a time.

On a file system the kernel holds a lock for a living process, so one that outlives its
process stops nobody. A bucket has no locks. There, whoever begins creates the claim
with the next number, which only one can (create if absent), and renews it; the claim
with the highest number counts. One that was not renewed for `STALE_SECONDS` is passed
over, and whoever finds that his was stops at once. The clocks of machines that share a
folder must agree to within half of that.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.storage.files import write_text
from vpt_jax.storage.paths import Folder, Remote, explained, objects

RENEW_SECONDS, STALE_SECONDS = 15.0, 60.0


class Busy(UserError):
    """Another process is at work there."""


@contextlib.contextmanager
def held(path: Folder, wait: bool, instead: str = "") -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: Of the lock; its folder is what is worked on.
        wait: For another that holds it, or refuse.
        instead: What else a user may do whom the lock refuses.

    Raises:
        Busy: Another process that is alive holds it.
        UserError: The folder cannot be used.
    """
    if isinstance(path, pathlib.Path):
        with _file_lock(path, wait, instead):
            yield
        return
    with explained(path.parent):
        claim = _take(path, wait, instead)
    done = threading.Event()
    renewing = threading.Thread(target=claim.renew_until, args=(done,), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        claim.release()


@contextlib.contextmanager
def _file_lock(path: pathlib.Path, wait: bool, instead: str) -> Iterator[None]:
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise _busy(path, _written(file), instead) from error
        before = _written(file)
        if before:
            say(f"{path} was left by {before}, which is gone: taken over")
        file.truncate(0)
        file.write(_holder())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # while it is still held: let go of on purpose


def _written(file) -> str:
    file.seek(0)
    return file.read().strip()


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _busy(path: Folder, holder: str, instead: str) -> Busy:
    return Busy(
        f"{path.parent} is being worked on by {holder}; wait for it, stop it, or "
        f"{instead or 'use another --workdir'}"
    )


class _Claim:
    """An object <lock>/<number>, and what it says of whoever created it."""

    def __init__(self, folder: Remote, number: int):
        self._folder, self._number = folder, number
        self._path = folder / f"{number:06d}"
        self._says = {"holder": _holder(), "token": secrets.token_hex(8), "renewed": 0}

    def create(self) -> bool:
        """Whether nobody was quicker."""
        import fsspec  # see `paths.objects`

        system, name = fsspec.core.url_to_fs(os.fspath(self._path))
        try:
            system.pipe_file(name, json.dumps(self._says).encode(), mode="create")
        except FileExistsError:
            # Where an answer was lost, the library has asked twice, and it is ours.
            return (_said(self._path) or {}).get("token") == self._says["token"]
        return True

    def renew_until(self, done: threading.Event) -> None:
        """Say from time to time that its process is alive."""
        while not done.wait(RENEW_SECONDS):
            try:
                lost = max(_numbers(self._folder), default=0) > self._number
                if not lost:
                    self._say(renewed=self._says["renewed"] + 1)
            except Exception as error:  # the bucket may answer again
                say(f"{self._path} could not be renewed: {error}")
                continue
            if lost:
                say(
                    f"error: {self._folder.parent} was taken over by another process "
                    "while this one gave no sign; it stops"
                )
                os._exit(2)  # nothing more may be written

    def release(self) -> None:
        """Let go of on purpose."""
        self._say(released=True)

    def withdraw(self) -> None:
        """It never counted."""
        self._path.unlink(missing_ok=True)

    def _say(self, **changes) -> None:
        self._says |= changes
        write_text(self._path, json.dumps(self._says))


def _take(folder: Remote, wait: bool, instead: str) -> _Claim:
    """The claim that counts from now on.

    Raises:
        Busy: Another one does, and `wait` is False.
    """
    while True:
        numbers = _numbers(folder)
        last = folder / f"{max(numbers, default=0):06d}"
        before = _said(last) if numbers else None
        if before is not None and not before.get("released"):
            if _is_renewed(last, before):
                if wait:
                    continue
                raise _busy(folder, before["holder"], instead)
            if _said(last) != before:
                continue  # let go of meanwhile
            say(f"{folder} was left by {before['holder']}, which is gone: taken over")
        own = max(numbers, default=0) + 1
        claim = _Claim(folder, own)
        if claim.create():
            # Since they were listed, others may have taken that number and the next,
            # and removed that number again.
            if max(_numbers(folder)) > own:
                claim.withdraw()
                continue
            for number in numbers:
                (folder / f"{number:06d}").unlink(missing_ok=True)
            return claim


def _is_renewed(path: Remote, known: dict) -> bool:
    """Whether a claim gives a sign of life before it is too old to count."""
    told = False
    while (now := _said(path)) is not None and not now.get("released"):
        if now["renewed"] != known["renewed"]:
            return True
        age = time.time() - path.stat().mtime
        if age > STALE_SECONDS:
            return False
        if age > 1 and not told:
            say(f"{path.parent} is held by {now['holder']}: waiting for a sign of it")
            told = True
        time.sleep(0.5)
    return False


def _numbers(folder: Remote) -> list[int]:
    return [int(path.name) for path in objects(folder) if path.name.isdigit()]


def _said(path: Remote) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
