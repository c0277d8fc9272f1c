"""The training loop: chunks of compiled steps, and on the host what comes between."""

import contextlib
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from jax.sharding import Mesh

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.training import inputs, programs
from vpt_jax.training.judge import judge
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.training.state import Checkpoints
from vpt_jax.training.step import State
from vpt_jax.types import Tree

CHUNK_SECONDS = 5.0  # how long progress, SIGTERM and checkpoints may have to wait
CHECKPOINT_SECONDS = 20.0


@dataclasses.dataclass
class Outcome:
    """What training leaves: the state and its costs, in seconds."""

    state: State
    train_seconds: float
    compile_seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What is known of trial `trial` when epoch `epoch` (from 1) is over.

    The scores are the objective's primary ones: in passing, and on validation images,
    of which `val_loss` is the mean loss as it is trained.
    """

    epoch: int
    trial: int
    train_loss: float | None  # None: not finite
    train_score: float
    val_score: float | None
    val_loss: float | None


def train(
    setup: Setup,
    mesh: Mesh,
    hyper: Hyper,
    examples: Source,
    val: Source | None,
    val_every: int,
    place: str,
    checkpoints: Checkpoints,
    on_start: Callable[[int], None],
    on_epoch: Callable[[Epoch], None],
    on_chunk: Callable[[int, float, float, float], None],
) -> Outcome:
    """Train all trials to the end, from the newest checkpoint if there is one.

    Args:
        setup, mesh, hyper: What is trained, where, and the (T,) hyper-parameters.
        examples: The training images.
        val: Images that are scored every `val_every` epochs and after the last.
        place: Of what the steps read, from `inputs.decide`.
        checkpoints: Where the state is kept.
        on_start: Called with the number of epochs that are already done.
        on_epoch: Called for every finished epoch and trial.
        on_chunk: Called with the finished steps, the latest mean loss and score of the
            running epoch, and images/s.

    Raises:
        SystemExit: SIGTERM came; the state is saved.
    """
    # ---- what goes to the devices once
    setup = inputs.placed(setup, place)
    network = setup.network
    frozen = programs.place_frozen(network, mesh)
    hyper = parallel.place(hyper, parallel.over_trials(mesh))
    state = programs.make_init(setup, mesh)(network.pretrained.params, hyper)
    first, state, train_seconds = checkpoints.restore(state)
    started = time.perf_counter()
    if first == 0:
        state = programs.initialise(
            setup, state, mesh, lambda: inputs.normalised(network, examples)
        )
    feed = inputs.feed(setup, place, mesh, hyper, frozen, examples)
    targets = parallel.place(examples.labels, parallel.replicated(mesh))
    if first == 0:
        train_seconds = time.perf_counter() - started  # of a prefix cache, mostly

    # ---- compile
    started = time.perf_counter()
    bounds = np.int32(0), np.int32(0)
    arguments = state, frozen, feed.at(first), targets, hyper, *bounds
    chunk = programs.compile_chunk(setup, mesh, feed.feed, *arguments)
    compile_seconds = time.perf_counter() - started

    # ---- chunks
    spe = setup.steps_per_epoch
    done, saved_at, chunk_steps, rate = first, time.perf_counter(), 1, 0.0
    on_start(done // spe)
    with _sigterm() as terminated:
        while done < setup.num_steps:
            started = time.perf_counter()
            stop = min(done + chunk_steps, _next_val(setup, done, val, val_every))
            rest = frozen, feed, targets, hyper
            state = _advance(chunk, state, *rest, done, stop)
            curves = parallel.fetch((state.loss, state.counted, state.alive))
            [seconds] = parallel.agree(time.perf_counter() - started)
            train_seconds += seconds
            steps = stop - done
            images = setup.images_seen(stop) - setup.images_seen(done)
            rate = images * len(hyper.seed) / seconds
            # The first chunk is one step: slow for reasons of its own.
            grown = 4 * chunk_steps if done > first else 8
            limit = max(1, int(CHUNK_SECONDS * steps / seconds))
            finished_before, done = done // spe, stop
            chunk_steps = min(grown, limit)

            of_val = None
            if val is not None and done == _next_val(setup, done - 1, val, val_every):
                of_val = _judged(setup, mesh, state, frozen, val)
            for epoch in range(finished_before, done // spe):
                last = epoch == done // spe - 1
                _report(setup, epoch, curves, of_val if last else None, on_epoch)
            on_chunk(done, *_running(setup, done, curves), rate)

            unsaved, killed = parallel.agree(
                time.perf_counter() - saved_at, terminated()
            )
            over = done == setup.num_steps or not curves[2].any()
            if over or killed or unsaved > CHECKPOINT_SECONDS:
                checkpoints.save(done, state, train_seconds)
                saved_at = time.perf_counter()
            if killed:  # also after the last step: a sweep has more to do
                checkpoints.close()
                print(
                    f"SIGTERM after step {done}: saved; the same command continues",
                    file=sys.stderr,
                )
                raise SystemExit(128 + signal.SIGTERM)
            if over:
                break
    checkpoints.close()
    images = setup.images_seen(done) * len(hyper.seed)
    return Outcome(state, train_seconds, compile_seconds, images / train_seconds)


def _advance(chunk, state: State, frozen, feed, targets, hyper, done, stop) -> State:
    """The state after the steps from `done` to `stop`.

    What is not on the devices is sent there while the steps before still run.
    """

    def started() -> Iterator:
        nonlocal state
        first = done
        while first < stop:
            last = min(stop, first + feed.max_steps)
            bounds = np.int32(first), np.int32(last)
            state = chunk(state, frozen, feed.at(first), targets, hyper, *bounds)
            yield state.alive.copy()  # the state itself goes into the next step
            first = last

    for finished in inputs.behind(started()):
        finished.block_until_ready()
    return state


def _next_val(setup: Setup, done: int, val, val_every: int) -> int:
    """The step after which the next validation is due; the last step without one."""
    if val is None or not val_every:
        return setup.num_steps
    every = val_every * setup.steps_per_epoch
    return min((done // every + 1) * every, setup.num_steps)


def _judged(
    setup: Setup, mesh: Mesh, state: State, frozen: Tree, val: Source
) -> list[tuple[float, float | None]]:
    """(primary score, mean loss) of each trial on the validation images."""
    network, weights = setup.network, setup.class_weights
    found = judge(network, mesh, state[:2], frozen, val, class_weights=weights)
    scores = (score[network.objective.METRIC] for score in found.scores)
    return [*zip(scores, found.losses, strict=True)]


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _report(setup, epoch, curves, of_val, on_epoch) -> None:
    loss, counted, _ = curves
    for trial in range(len(loss)):
        mean = float(loss[trial, epoch]) / setup.num_examples
        score, val_loss = (None, None) if of_val is None else of_val[trial]
        on_epoch(
            Epoch(
                epoch + 1,
                trial,
                _finite(mean),
                setup.network.objective.running(
                    counted[trial, epoch].tolist(), setup.num_examples
                ),
                score,
                val_loss,
            )
        )


def _running(setup: Setup, done: int, curves) -> tuple[float, float]:
    """Mean loss and score over the images seen in the epoch of the latest step."""
    loss, counted, alive = curves
    epoch = (done - 1) // setup.steps_per_epoch
    seen = setup.images_seen(done) - epoch * setup.num_examples
    trials = alive if alive.any() else np.ones_like(alive)
    running = setup.network.objective.running
    loss, counted = (x[trials, epoch].mean(axis=0).tolist() for x in (loss, counted))
    return loss / seen, running(counted, seen)


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM into a question that the loop asks between chunks."""
    received = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread: the caller handles its signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
