"""A bank of many tuned tasks, against each task by itself.

python -m benchmarks.bank [--backbone vit_nano] [--tasks 1 16 256 1000]
    [--workload identical uniform distinct] [--images 512]

VPT-Deep, P = 10, 100 classes, tensors drawn at random; images that are already resized.
`identical`: all images of one task; `uniform`: each of a task drawn from all;
`distinct`: as many tasks in turn as there are. `apart` is what one program per task
does with the same images: the images of each task together, one task after the other.
All are measured in turn, `--repeats` times; printed are medians of images/s, their
ratio to one task in the bank, and bytes and seconds per task to load it.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from vpt_jax import Bank, Classifier, export, load, resolution
from vpt_jax.config import base
from vpt_jax.training.step import merged

CLASSES = 100


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_nano")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 16, 256, 1000])
    parser.add_argument(
        "--workload",
        nargs="+",
        default=["identical", "uniform", "distinct"],
        choices=["identical", "uniform", "distinct"],
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    measure(parser.parse_args())


def measure(args: argparse.Namespace) -> None:
    """All workloads, each number of tasks in a bank of its own."""
    rng = np.random.default_rng(0)
    checkpoint = None if args.backbone == "vit_nano" else "random"
    ways: dict[tuple, Callable] = {}
    with tempfile.TemporaryDirectory() as root:
        write = functools.partial(write_export, Path(root), args.backbone, checkpoint)
        folders = [write(seed) for seed in range(max(args.tasks))]
        alone = load(folders[0], max_batch=args.batch)
        seconds = []
        for count in sorted(args.tasks):
            bank = Bank(args.backbone, checkpoint, max_batch=args.batch)
            for folder in folders[:count]:
                started = time.perf_counter()
                bank.load(folder.name, folder)
                seconds.append(time.perf_counter() - started)
            ways |= _ways(bank, alone, count, args, rng)
    rates = _rates(ways, args)
    one = next(iter(rates.values()))
    for (count, workload, how), rate in rates.items():
        row = {"tasks": count, "workload": workload, "how": how}
        row |= {
            "images_per_second": round(rate, 1),
            "to_one_task": round(rate / one, 3),
        }
        print(json.dumps(row))
    row = {"backbone": args.backbone, "load_seconds": statistics.median(seconds)}
    print(json.dumps(row | {"bytes_per_task": bank.task("0").shelf.row_bytes}))


def _ways(
    bank: Bank, alone: Classifier, count: int, args: argparse.Namespace, rng
) -> dict[tuple, Callable]:
    side = alone.network.image_size
    views = rng.uniform(0, 255, (args.images, side, side, 3)).astype(np.float32)
    drawn = {
        "identical": np.zeros(args.images, int),
        "uniform": rng.integers(0, count, args.images),
        "distinct": np.arange(args.images) % count,
    }
    found, outputs = {}, _outputs(alone)
    for name in args.workload if count > 1 else ["identical"]:
        tasks = [bank.task(str(n)) for n in drawn[name]]
        asked = list(zip(tasks, views, strict=True))
        found[count, name, "bank"] = functools.partial(bank.run, asked)
        found[count, name, "apart"] = functools.partial(
            _apart, alone, outputs, drawn[name], views
        )
    return found


def _rates(ways: dict[tuple, Callable], args: argparse.Namespace) -> dict[tuple, float]:
    """Images per second, the median of all repeats; the ways in turn."""
    for way in ways.values():
        way()  # compiles
    took: dict[tuple, list[float]] = {key: [] for key in ways}
    for _ in range(args.repeats):
        for key, way in ways.items():
            started = time.perf_counter()
            way()
            took[key].append(time.perf_counter() - started)
    return {key: args.images / statistics.median(took[key]) for key in ways}


def _apart(
    alone: Classifier, outputs: Callable, tasks: np.ndarray, views: np.ndarray
) -> None:
    """The images of each task by its own program; one stands for all, whose programs
    are the same."""
    frozen = alone.network.parts[2]
    for task in np.unique(tasks):
        own = views[tasks == task]
        for start in range(0, len(own), alone.max_batch):
            part = own[start : start + alone.max_batch]
            size = 1 << (len(part) - 1).bit_length()
            fill = [(0, size - len(part))] + [(0, 0)] * 3
            np.asarray(outputs(alone.trainable, frozen, np.pad(part, fill)))


def _outputs(alone: Classifier) -> Callable:
    """Its program, which takes other tensors of the same shapes as well."""
    network = alone.network

    def outputs(trainable, frozen, raw):
        model = merged(network, alone._mesh, trainable, frozen, alone.stats)
        return model(network.normalised(raw))

    return jax.jit(outputs)


def write_export(root: Path, backbone: str, checkpoint: str | None, seed: int) -> Path:
    network, content = _network(backbone, checkpoint)
    rng = np.random.default_rng(seed)
    trainable, stats = jax.tree.map(
        lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), network.parts[1::2]
    )
    about = {
        "config": content,
        "classes": [str(c) for c in range(CLASSES)],
        "objective": "classification",
        "seed": seed,
        "status": "ok",
        "validation": None,
        "metrics": {},
    }
    export.write(root / str(seed), network, trainable, stats, about, False)
    return root / str(seed)


@functools.cache
def _network(backbone: str, checkpoint: str | None):
    config = base("digits", "vpt_deep", backbone)
    config.backbone.checkpoint, config.method.length = checkpoint, 10
    experiment = resolution.resolve(config)
    choice = dataclasses.replace(experiment.network, num_classes=CLASSES)
    return choice.make(), experiment.content


if __name__ == "__main__":
    main()
