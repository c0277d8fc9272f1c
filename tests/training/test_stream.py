"""Training images that are cropped by chance, and sets that do not fit in memory."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import tiny

from vpt_jax import parallel
from vpt_jax.data import augment, preprocess, source
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.training import inputs, loop, programs, step
from vpt_jax.training.inputs import Limits
from vpt_jax.training.state import Checkpoints

CROPS = dataclasses.replace(
    preprocess.PRESETS["vpt_fgvc"], shorter=(10, 8), mean=(0.5,) * 3, std=(0.5,) * 3
)
NOTHING = Limits(images=0)


def crops_setup(**changes):
    return tiny.make_setup("linear", preset=CROPS, **changes)


def photos():
    """As many images of different sizes as `tiny` has."""
    rng = np.random.default_rng(0)
    sizes = [(8 + n % 3, 12 - n % 5) for n in range(tiny.NUM_EXAMPLES)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    labels = np.asarray(tiny.make_data()[1])
    return Examples.from_images(images, labels, list(map(str, labels)))


def ignore(*_):
    pass


def train(setup, limits, folder, lr=(0.1,), seed=(3,), on_chunk=ignore):
    hyper = tiny.make_hyper(lr, [1e-3] * len(lr), seed)
    mesh = parallel.make_mesh(len(lr), setup.batch_size)
    checkpoints = Checkpoints(folder, lambda: None)
    place = inputs.decide(setup, limits, photos())
    try:
        return loop.train(
            *(setup, mesh, hyper, photos(), None, 0, place, checkpoints),
            *(ignore, ignore, on_chunk),
        ).state
    finally:
        checkpoints.close()


def assert_close(a, b, atol=1e-6):
    """To `atol`, or to the last two bits of larger numbers (sums of losses)."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2**-22, atol=atol)


def test_random_images_are_not_cached():
    assert tiny.make_setup("linear").cut == 4
    assert crops_setup().cut == 0
    centred = dataclasses.replace(CROPS, augment=False)
    assert tiny.make_setup("linear", preset=centred).cut == 4


def test_streamed_and_resident_images_train_alike(tmp_path, capsys):
    setup = crops_setup()
    resident = train(setup, Limits(), tmp_path / "device")
    assert capsys.readouterr().err == ""
    streamed = train(setup, NOTHING, tmp_path / "stream")
    told = capsys.readouterr().err
    assert told.startswith("10 training images, about 0.0 MB, do not fit in memory: ")
    assert told.count("\n") == 1
    assert_close(streamed, resident)
    # crops are drawn by the seed; the first of two trials sees what it saw alone
    both = train(setup, NOTHING, tmp_path / "two", (0.1, 0.02), (3, 4))
    assert_close(jax.tree.map(lambda x: x[:1], both), resident)


def test_a_killed_stream_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)  # after every chunk
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0)  # of one step
    setup = crops_setup()
    whole = train(setup, NOTHING, tmp_path / "whole")
    steps = []

    def kill(done, *_):
        steps.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(setup, NOTHING, tmp_path / "cut", on_chunk=kill)
    assert setup.steps_per_epoch == 3 and steps == [1, 2, 3, 4, 5, 6]
    again = train(
        setup, NOTHING, tmp_path / "cut", on_chunk=lambda done, *_: steps.append(done)
    )
    assert steps[6:] == [6, 7, 8, 9]  # from the fifth step on, of three per epoch
    assert_close(again, whole, 0)


def test_crops_are_the_same_in_any_chunks_and_for_any_trials():
    setup, where = crops_setup(), parallel.replicated(parallel.make_mesh(1, 4))
    images = jax.device_put(inputs.load(setup.network, photos()), where)
    assert isinstance(images, augment.Ragged)
    labels = tiny.make_data()[1]
    frozen = setup.network.parts[2]

    def run(seeds, stops):
        hyper = tiny.make_hyper([0.1] * len(seeds), [0.0] * len(seeds), seeds)
        mesh = parallel.make_mesh(len(seeds), setup.batch_size)
        state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
        chunk = programs.make_chunk(setup, mesh)
        for start, stop in zip([0, *stops], stops, strict=False):
            between = np.int32(start), np.int32(stop)
            state = chunk(state, frozen, images, labels, hyper, *between)
        return state

    whole = run([3], [9])
    assert_close(run([3], [1, 2, 5, 9]), whole, 0)
    assert_close(jax.tree.map(lambda x: x[1:], run([4, 3], [9])), whole)


# ---- the stream itself


def stream(setup, rows=slice(0, 4), examples=None):
    return inputs.Stream(examples or photos(), setup, 3, rows, jnp.asarray)


def test_a_stream_begins_anywhere_and_is_the_same_for_any_number_of_processes():
    setup = crops_setup()
    one = stream(setup)
    batches = [one.at(done) for done in range(setup.num_steps)]
    assert batches[0].shape == (4, 8, 8, 3) and batches[0].dtype == np.uint8
    np.testing.assert_array_equal(stream(setup).at(4), batches[4])  # mid-epoch
    halves = [stream(setup, rows) for rows in (slice(0, 2), slice(2, 4))]
    for done in (4, 5, 6):
        joined = np.concatenate([half.at(done) for half in halves])
        np.testing.assert_array_equal(joined, batches[done])
    # an image is cropped anew in each epoch
    orders = [step.epoch_order(setup, 3, epoch) for epoch in (0, 1)]
    same = int(orders[0][0])
    done, row = divmod(list(np.asarray(orders[1])).index(same), 4)
    assert (batches[3 + done][row] != batches[0][0]).any()


def test_rows_of_a_process():
    mesh = parallel.make_mesh(1, 4)
    assert parallel.own_rows(mesh, 4) == slice(0, 4)


class Counted(source.Source):
    """A large source that knows how many images were read of it."""

    labels = np.zeros(5000, np.int32)
    ids = tuple(map(str, range(5000)))

    def __init__(self):
        self.count, self.lock = 0, threading.Lock()

    def __len__(self):
        return 5000

    def read(self, indices):
        with self.lock:
            self.count += len(indices)
        if 4999 in indices and self.count > 100:
            raise UserError("image 4999 cannot be read")
        return [np.full((8, 8, 3), index % 256, np.uint8) for index in indices]

    def select(self, indices):
        raise NotImplementedError


def test_no_more_is_read_than_waits_to_be_used():
    counted = Counted()
    setup = tiny.make_setup(num_examples=5000)
    reader = stream(setup, examples=counted)
    for done in range(10):
        reader.at(done)
    assert counted.count <= 40 + source.AHEAD
    counted = Counted()
    scored = inputs.batches(setup.network, counted)
    next(scored)
    assert counted.count <= inputs.SAMPLE + inputs.BATCH + source.AHEAD


def test_a_broken_image_stops_the_reader_with_its_own_message():
    with pytest.raises(UserError, match="image 4999 cannot be read"):
        for _ in inputs.batches(tiny.make_setup().network, Counted()):
            pass


def test_images_that_only_seemed_to_be_of_one_size():
    """Beyond the few that are looked at, one image differs."""
    images = [np.full((8, 8, 3), n % 256, np.uint8) for n in range(300)]
    images[150] = np.full((4, 6, 3), 150, np.uint8)
    examples = Examples.from_images(images, [0] * 300, list(map(str, range(300))))
    setup = tiny.make_setup()
    found = [raw[:size] for _, size, raw in inputs.batches(setup.network, examples)]
    assert [len(group) for group in found] == [100, 100, 100]
    values = np.concatenate(found)[:, 0, 0, 0]
    np.testing.assert_array_equal(values, np.arange(300) % 256)
    loaded = inputs.load(setup.network, examples)
    assert loaded.shape == (300, 8, 8, 3)
    np.testing.assert_array_equal(loaded[:, 0, 0, 0], values)


def test_few_computations_are_started_ahead():
    started, taken = [], []

    def start():
        for number in range(6):
            started.append(number)
            yield number

    for number in inputs.behind(start()):
        taken.append(number)
        assert len(started) == min(6, len(taken) + inputs.IN_FLIGHT)
    assert taken == list(range(6))


def test_a_stream_is_read_while_steps_run(tmp_path, monkeypatch):
    """Several steps are started one after the other before the host looks again."""
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1000)
    looks = []
    train(
        crops_setup(), NOTHING, tmp_path, on_chunk=lambda done, *_: looks.append(done)
    )
    assert looks == [1, 9]
