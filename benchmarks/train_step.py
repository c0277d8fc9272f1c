"""Time and memory of one VPT-Deep training step, through the program that trains.

python -m benchmarks.train_step --backbone vit_b16 --batch 8 --length 50

Beside it stands what the public PyTorch code (KMnP/vpt, torch 2.13, float32) took for
ViT-B/16, batch 8, P = 50, 224 px on 2 CPU cores: 2.77 to 2.95 s a step, 2,750 MB.
"""

import argparse
import json
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vpt_jax import api, data, parallel
from vpt_jax import config as configs
from vpt_jax.training import optim, step

PUBLIC = {
    "what": "KMnP/vpt, ViT-B/16, batch 8, P = 50, 224 px, float32, 2 CPU cores",
    "step_seconds": [2.77, 2.95],
    "peak_process_mb": 2750,
}


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_b16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=50, help="prompt tokens P")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default=None, choices=configs.PRECISIONS)
    parser.add_argument("--scan", action="store_true", help="blocks as one loop")
    parser.add_argument("--remat", action="store_true", help="compute blocks again")
    print(json.dumps(measure(parser.parse_args()), indent=1))


def measure(args) -> dict:
    """Median seconds of a step after two that do not count."""
    config = configs.base("cifar100", "vpt_deep", args.backbone)
    config.backbone.checkpoint = "random"
    config.backbone.scan, config.backbone.remat = args.scan, args.remat
    config.image_size, config.batch_size = args.image_size, args.batch
    config.method.length, config.precision = args.length, args.precision
    config = configs.resolve(config)
    task = data.get_task(config.task)
    labels = np.zeros(args.batch, np.int32)
    setup = api.make_setup(config, labels, task.num_classes)
    mesh = parallel.make_mesh(args.trials, args.batch)
    ones = jnp.ones(args.trials)
    hyper = optim.Hyper(0.1 * ones, 1e-3 * ones, jnp.arange(args.trials))
    state = step.make_init(setup, mesh)(setup.pretrained.params, hyper)
    shape = (args.batch, args.image_size, args.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    rest = setup.parts[2], jnp.asarray(images), jnp.asarray(labels), hyper
    started = time.perf_counter()
    chunk = step.make_chunk(setup, mesh).lower(state, *rest, 0, 1).compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for n in range(2 + args.repeats):
        started = time.perf_counter()
        state = chunk(state, *rest, jnp.int32(n), jnp.int32(n + 1))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[2:])
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "backbone": args.backbone,
        "shape": {
            "trials": args.trials,
            "batch": args.batch,
            "length": args.length,
            "image_size": args.image_size,
        },
        "precision": config.precision,
        "scan": args.scan,
        "remat": args.remat,
        "step_seconds": round(median, 4),
        "step_seconds_range": [round(min(seconds[2:]), 4), round(max(seconds[2:]), 4)],
        "images_per_second": round(args.trials * args.batch / median, 1),
        "compile_seconds": round(compile_seconds, 2),
        "temporaries_mb": chunk.memory_analysis().temp_size_in_bytes // 10**6,
        "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "public_code": PUBLIC,
    }


if __name__ == "__main__":
    main()
