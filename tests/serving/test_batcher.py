"""Images of many requests in one batch, in their order, within bounds."""

import asyncio
import contextlib
import threading

import pytest

from vpt_jax.serving.batcher import Batcher, Room
from vpt_jax.serving.protocol import Refused


def batcher(most=4, window=0.0):
    """One that doubles numbers, the batches that it ran, and what lets it run."""
    batches, go = [], threading.Event()

    def run(items):
        go.wait(10)
        batches.append(items)
        if 13 in items:
            raise ArithmeticError("13")
        return [2 * x for x in items]

    return Batcher(run, most, window), batches, go


async def gathered(one, *asked):
    """What each request gets."""
    started = [asyncio.ensure_future(one.ask(items)) for items in asked]
    await asyncio.sleep(0)
    return started


def test_what_waits_goes_together_and_comes_back_to_whom_asked():
    one, batches, go = batcher()

    async def main():
        first = await gathered(one, [1])
        while one._waiting:  # it has begun, alone
            await asyncio.sleep(0)
        rest = await gathered(one, [2, 3], [4], [5, 6, 7])
        go.set()
        return await asyncio.gather(*first, *rest)

    assert asyncio.run(main()) == [[2], [4, 6], [8], [10, 12, 14]]
    assert batches == [[1], [2, 3, 4, 5], [6, 7]]
    one.close()


def test_a_window_lets_others_join():
    one, batches, go = batcher(window=60)
    go.set()

    async def main():
        started = await gathered(one, [1], [2], [3, 4])  # full: does not wait
        return await asyncio.gather(*started)

    assert asyncio.run(main()) == [[2], [4], [6, 8]]
    assert batches == [[1, 2, 3, 4]]
    one.close()


def test_an_error_is_theirs_who_asked():
    one, _, go = batcher()
    go.set()

    async def main():
        with pytest.raises(ArithmeticError):
            await one.ask([13])
        return await one.ask([1])

    assert asyncio.run(main()) == [2]
    one.close()


def test_who_has_gone_is_not_waited_for():
    one, batches, go = batcher(most=2)

    async def main():
        started = await gathered(one, [1], [2], [3])
        started[2].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await started[2]
        go.set()
        await asyncio.gather(*started[:2])
        return await one.ask([4])

    assert asyncio.run(main()) == [8]
    assert 3 not in sum(batches, [])
    one.close()


def test_closing_answers_what_waits_and_refuses_more():
    one, _, go = batcher(window=60)

    async def main():
        started = await gathered(one, [1], [2])
        closing = asyncio.ensure_future(asyncio.to_thread(one.close))
        go.set()
        found = await asyncio.gather(*started)
        await closing
        with pytest.raises(Refused, match="shutting down"):
            await one.ask([3])
        return found

    assert asyncio.run(main()) == [[2], [4]]


def test_room_is_given_back():
    room = Room(3, "images")
    with room.take(2), pytest.raises(Refused) as refused, room.take(2):
        pass
    assert refused.value.status == 503
    assert refused.value.headers == {"retry-after": "1"}
    assert "2 of 3 images" in str(refused.value)
    with room.take(3):
        pass
    assert room.taken == 0
