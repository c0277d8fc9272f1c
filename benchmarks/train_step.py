"""Time, memory and use of the device of a VPT-Deep step of the program that trains.

python -m benchmarks.train_step --backbone vit_b16 --batch 8 --length 50
python -m benchmarks.train_step --backbone vit_ti16 vit_b16 vit_l16 vit_h14 swin_b \\
    --length 1 10 50 100 200 --batch 16 64 --part train inference

Every combination runs in a process of its own, so that peaks of memory are its own.
`flops` counts the matrix products and convolutions of the computation, which is what
the method needs: forward and the gradients of activations, no gradients of frozen
weights. `utilisation` is their rate over that of the fastest square matrix product
measured in the same process and type.
"""

import argparse
import functools
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from flax import nnx

from vpt_jax import config as configs
from vpt_jax import parallel, resolution
from vpt_jax.backbones import gpu_attention, layers
from vpt_jax.planning.flops import products
from vpt_jax.training import optim, programs
from vpt_jax.training.setup import Setup
from vpt_jax.types import Config

SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192), "tpu": (4096, 8192)}
"""Of the square matrices that set the ceiling."""

GRID = ("backbone", "batch", "length", "trials", "precision", "part")


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_shape(parser, nargs="+")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["train"])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    points = list(itertools.product(*(getattr(args, name) for name in GRID)))
    if len(points) > 1:
        found = [own_process(args, point) for point in points]
    else:
        vars(args).update(zip(GRID, points[0], strict=True))
        found = PARTS[args.part](args)
    print(json.dumps(found, indent=1))


def add_shape(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """The arguments that `prepare` reads; with `nargs`, several of some."""

    def add(name: str, default, kind: type, meaning: str) -> None:
        default = [default] if nargs else default
        parser.add_argument(name, nargs=nargs, type=kind, default=default, help=meaning)

    add("--backbone", "vit_b16", str, "a name of configs/")
    add("--batch", 8, int, "images per trial")
    add("--length", 50, int, "P")
    add("--trials", 1, int, "at once")
    add("--precision", None, str, "float32 or bfloat16; else the device's default")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--method", default="vpt_deep", help="or full")
    parser.add_argument("--scan", action="store_true", help="blocks as one loop")
    parser.add_argument("--remat", action="store_true", help="compute blocks again")
    parser.add_argument("--no-cudnn", action="store_true", help="attention by XLA")
    parser.add_argument("--cache", help="folder of a compile cache: first steps again")


def own_process(args, point: tuple) -> dict:
    """One combination."""
    command = [sys.executable, "-m", "benchmarks.train_step"]
    for name, value in zip(GRID, point, strict=True):
        command += [f"--{name}", str(value)] if value is not None else []
    for name in ("image_size", "method", "repeats", "cache"):
        value = getattr(args, name)
        flag = "--" + name.replace("_", "-")
        command += [flag, str(value)] if value is not None else []
    for name in ("scan", "remat", "no_cudnn"):
        command += ["--" + name.replace("_", "-")] if getattr(args, name) else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        shape = dict(zip(GRID, point, strict=True))
        return {"failed": done.returncode} | shape  # its message is on stderr
    return json.loads(done.stdout)


def prepare(args) -> tuple:
    """(experiment, setup, mesh, hyper-parameters, state) of a shape."""
    if args.cache:
        jax.config.update("jax_compilation_cache_dir", args.cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if args.no_cudnn:
        gpu_attention.fits = lambda query, key: False
    experiment = resolution.resolve(configuration(args))
    setup = experiment.make_setup(np.zeros(args.batch, np.int32))
    mesh = parallel.make_mesh(args.trials, args.batch)
    ones = jnp.ones(args.trials)
    hyper = optim.Hyper(0.1 * ones, 1e-3 * ones, jnp.arange(args.trials))
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    return experiment, setup, mesh, hyper, state


def configuration(args) -> Config:
    """Of a shape, with a random backbone."""
    config = configs.base("cifar100", args.method, args.backbone)
    config.backbone.checkpoint = "random"
    config.backbone.scan, config.backbone.remat = args.scan, args.remat
    config.image_size, config.batch_size = args.image_size, args.batch
    config.precision = args.precision
    if args.method == "vpt_deep":
        config.method.length = args.length
    return config


def pixels(args) -> np.ndarray:
    """A batch of images."""
    shape = (args.batch, args.image_size, args.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(args) -> dict:
    """Median seconds of a step after two that do not count."""
    experiment, setup, mesh, hyper, state = prepare(args)
    labels = jnp.zeros(args.batch, jnp.int32)
    rest = setup.network.parts[2], jnp.asarray(pixels(args)), labels, hyper
    started = time.perf_counter()
    chunk = programs.make_chunk(setup, mesh).lower(state, *rest, 0, 1).compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for n in range(2 + args.repeats):
        started = time.perf_counter()
        state = chunk(state, *rest, jnp.int32(n), jnp.int32(n + 1))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - started)
        if n == 0:  # with imports, and weights drawn by chance
            since_start = time.time() - psutil.Process().create_time()
    facts = {
        "first_step_seconds": round(compile_seconds + seconds[0], 2),
        "first_step_after_start_seconds": round(since_start, 2),
    }
    flops = args.trials * count_flops(setup, gradients=True)
    return facts | report(args, experiment, seconds[2:], compile_seconds, flops, chunk)


def infer(args) -> dict:
    """Median seconds of the logits of a batch."""
    experiment, setup, mesh, _, state = prepare(args)
    rest = (
        state.trainable,
        state.stats,
        setup.network.parts[2],
        jnp.asarray(pixels(args)),
    )
    started = time.perf_counter()
    outputs = programs.make_outputs(setup.network, mesh).lower(*rest).compile()
    compile_seconds = time.perf_counter() - started
    seconds = timed(lambda: outputs(*rest), 2 + args.repeats)[2:]
    flops = args.trials * count_flops(setup, gradients=False)
    return report(args, experiment, seconds, compile_seconds, flops, outputs)


PARTS = {"train": measure, "inference": infer}


def report(args, experiment, seconds, compile_seconds, flops, program) -> dict:
    """What one combination took."""
    median = statistics.median(seconds)
    peak = matmul_flops_per_second(jnp.dtype(experiment.network.backbone.precision))
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "part": args.part,
        "backbone": args.backbone,
        "method": args.method,
        "shape": {
            "trials": args.trials,
            "batch": args.batch,
            "length": args.length,
            "image_size": args.image_size,
        },
        "precision": experiment.network.backbone.precision,
        "scan": args.scan,
        "remat": args.remat,
        "no_cudnn": args.no_cudnn,
        "step_seconds": round(median, 5),
        "step_seconds_range": [round(min(seconds), 5), round(max(seconds), 5)],
        "images_per_second": round(args.trials * args.batch / median, 1),
        "gigaflops": round(flops / 1e9, 1),
        "ceiling_teraflops_per_second": round(peak / 1e12, 3),
        "utilisation": round(flops / median / peak, 3),
        "compile_seconds": round(compile_seconds, 2),
        "temporaries_mb": program.memory_analysis().temp_size_in_bytes // 10**6,
        "peak_device_mb": memory.get("peak_bytes_in_use", 0) // 10**6 or None,
        "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def timed(run, repeats: int) -> list[float]:
    """Seconds of each of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return seconds


@functools.cache
def matmul_flops_per_second(dtype) -> float:
    """The rate of the fastest square product."""
    best = 0.0
    for side in SIDES[jax.default_backend()]:
        x = jnp.ones((side, side), dtype)
        product = jax.jit(jnp.matmul)
        median = statistics.median(timed(lambda f=product, x=x: f(x, x), 12)[2:])
        best = max(best, 2 * side**3 / median)
    return best


def count_flops(setup: Setup, gradients: bool) -> int:
    """Of the products in a step of one trial, or in the logits of one.

    With attention as it is defined: what we compute twice to save memory counts once,
    and what cuDNN does counts.
    """
    graphdef, trainable, frozen, stats = setup.network.parts
    size = setup.network.image_size
    images = jax.ShapeDtypeStruct((setup.batch_size, size, size, 3), jnp.float32)

    def loss(trainable, frozen, images):
        model = nnx.merge(graphdef, trainable, frozen, stats)
        ones = jnp.ones(setup.batch_size)
        key = jax.random.key(0)
        logits = model.suffix(images, 0, key=key, train=True, mask=ones)
        labels = jnp.zeros(setup.batch_size, jnp.int32)
        objective = setup.network.objective
        return objective.loss(logits, labels, ones, setup.class_weights)[0]

    run = jax.grad(loss) if gradients else loss
    shapes = jax.eval_shape(lambda x: x, frozen)
    with mock.patch.object(layers, "attend", jax.nn.dot_product_attention):
        return products(jax.make_jaxpr(run)(trainable, shapes, images).jaxpr)


if __name__ == "__main__":
    main()
