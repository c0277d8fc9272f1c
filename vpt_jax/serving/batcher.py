"""Images of many requests, together in one batch.

The first that waits opens a window of a few milliseconds, in which others may join; a
full batch does not wait, and while one runs the next one gathers by itself.
"""

import asyncio
import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from vpt_jax.serving.protocol import Refused

RETRY_SECONDS = 1


class Room:
    """How much may be on its way at once."""

    def __init__(self, most: int, what: str):
        self._most, self._what = most, what
        self.taken = 0

    @contextlib.contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold so much of it while the block runs; of one thread only.

        Raises:
            Refused: 503, there is not so much left.
        """
        if self.taken + count > self._most:
            raise Refused(
                503,
                f"too busy: {self.taken} of {self._most} {self._what} are taken; try "
                "again",
                {"retry-after": str(RETRY_SECONDS)},
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


class Batcher:
    """One thread that runs what was asked, batch by batch.

    Args:
        run: From a list of what was asked to a list of what was found.
        most: In a batch.
        window: Seconds that the first one waits for others.
    """

    def __init__(self, run: Callable[[list], list], most: int, window: float):
        self._run, self._most, self._window = run, most, window
        self._waiting: collections.deque = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    async def ask(self, items: Sequence[Any]) -> list:
        """What `run` gives for each of them."""
        futures = [Future() for _ in items]
        now = time.monotonic()
        with self._changed:
            if self._closed:
                raise Refused(503, "shutting down", {"retry-after": "1"})
            self._waiting.extend(
                (now, item, future) for item, future in zip(items, futures, strict=True)
            )
            self._changed.notify()
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    def close(self) -> None:
        """Run what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._answer(self._next()):
            pass

    def _answer(self, batch: list) -> bool:
        """Whether there was a batch. What it held is let go before the next one."""
        # Whoever asked may have gone.
        kept = [(x, f) for _, x, f in batch if f.set_running_or_notify_cancel()]
        try:
            found = self._run([item for item, _ in kept])
        except Exception as error:  # is theirs who asked; the thread goes on
            for _, future in kept:
                future.set_exception(error)
        else:
            for (_, future), one in zip(kept, found, strict=True):
                future.set_result(one)
        return bool(batch)

    def _next(self) -> list:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._waiting[0][0] + self._window
            while len(self._waiting) < self._most and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            count = min(self._most, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]
