"""Streaming of JPEGs beside tf.data doing the same work on the same cores.

python -m benchmarks.input_pipeline      (needs `pip install tensorflow`)

Both decode, resize the shorter side to 256 px with an antialiased bilinear kernel, cut
224 px anywhere, mirror half and make uint8 batches of 64, in alternating rounds over
the same rendered files. Before that, one epoch of `--epoch` images is streamed and the
memory of the process is read ten times on the way; its small files make that quick.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
import psutil
from PIL import Image

from vpt_jax import config as configs
from vpt_jax import resolution
from vpt_jax.data.source import Files
from vpt_jax.training.inputs import Stream

BATCH, SIZE, SHORTER = 64, 224, 256


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch", type=int, default=50_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = measure_memory(render(folder, "small", 64, 72, 96), args.epoch)
        files = render(folder, "large", args.images, args.height, args.width)
        speed = measure_speed(files, args.rounds)
    cores = len(psutil.Process().cpu_affinity())
    print(json.dumps({"cores": cores, **speed, "memory": memory}, indent=1))


def render(folder: str, name: str, count: int, height: int, width: int) -> list[str]:
    """JPEG files with the detail of photographs: noise at several scales."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        image = np.zeros((height, width, 3))
        for scale in (4, 16, 64):
            shape = (-(-height // scale), -(-width // scale), 3)
            coarse = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            image += np.asarray(coarse.resize((width, height))) / 3
        path = pathlib.Path(folder) / f"{name}_{number}.jpg"
        Image.fromarray(image.astype(np.uint8)).save(path, quality=90)
        paths.append(str(path))
    return paths


def stream(files: list[str], count: int, epochs: int) -> Stream:
    """What a training run of `count` examples reads that do not fit in memory."""
    paths = tuple(pathlib.Path(files[n % len(files)]) for n in range(count))
    labels = np.zeros(count, np.int32)
    config = configs.base("digits", "linear", "vit_nano")
    config.data.preset, config.image_size = "vpt_fgvc", SIZE
    config.batch_size, config.epochs = BATCH, epochs
    setup = resolution.resolve(config).make_setup(labels)
    source = Files(paths, labels, tuple(map(str, range(count))))
    return Stream(source, setup, 0, slice(0, BATCH), lambda batch: batch)


def measure_speed(files: list[str], rounds: int) -> dict:
    """Medians of images/s; the first round of each does not count.

    Each round begins and ends a pipeline of its own: neither reads ahead while the
    other is measured.
    """
    files = files[: len(files) // BATCH * BATCH]
    steps, dataset = len(files) // BATCH, tf_data(files)

    readers = iter([stream(files, len(files), 1) for _ in range(rounds + 1)])

    def grain() -> list[np.ndarray]:
        reader = next(readers)
        return [reader.at(step) for step in range(steps)]

    pipelines = {"grain": grain, "tf_data": lambda: list(dataset.as_numpy_iterator())}
    wall, cpu = {name: [] for name in pipelines}, {name: [] for name in pipelines}
    for _ in range(rounds + 1):
        for name, run in pipelines.items():
            started = time.perf_counter(), time.process_time()
            shapes = [batch.shape for batch in run()]
            wall[name].append(time.perf_counter() - started[0])
            cpu[name].append(time.process_time() - started[1])
            assert shapes == [(BATCH, SIZE, SIZE, 3)] * steps
    median = {name: statistics.median(values[1:]) for name, values in wall.items()}
    busy = {name: statistics.median(values[1:]) for name, values in cpu.items()}
    return {
        "images_per_second": {k: round(len(files) / s, 1) for k, s in median.items()},
        "ratio": round(median["tf_data"] / median["grain"], 2),
        "cpu_ms_per_image": {
            k: round(1e3 * s / len(files), 2) for k, s in busy.items()
        },
        "seconds": {k: [round(x, 2) for x in v[1:]] for k, v in wall.items()},
    }


def tf_data(files: list[str]):
    """The same work."""
    import tensorflow as tf

    def load(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        extent = tf.shape(image)[:2]
        extent = extent * SHORTER // tf.reduce_min(extent)
        image = tf.image.resize(image, extent, antialias=True)
        image = tf.image.random_crop(image, (SIZE, SIZE, 3))
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files))
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def measure_memory(files: list[str], count: int) -> dict:
    """Resident megabytes after each tenth of an epoch."""
    reader, process = stream(files, count, 1), psutil.Process()
    steps, seen = count // BATCH, []
    for step in range(steps):
        reader.at(step)
        if (step + 1) % (steps // 10) == 0:
            seen.append(process.memory_info().rss // 10**6)
    growth = seen[-1] - seen[0]
    return {"images": count, "megabytes": seen, "growth_megabytes": growth}


if __name__ == "__main__":
    main()
