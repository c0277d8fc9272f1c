"""A 40-point grid at once, against one process per point as one would script it.

python -m benchmarks.sweep [--method linear] [--epochs 100] [--processes 40]

Digits with the embedded backbone, the public grid of the method. Both sides pay for
starting Python, loading and compiling; compiled programs are kept on disk between
processes, which helps the scripted side only. Where fewer processes are run than the
grid has points, their mean time is multiplied. `--halving n` also runs the grid with
successive halving and says what that saved and whether it chose the same point.

`python -m benchmarks.protocol_cost` counts what the whole protocol costs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import jax

ONE = """
import sys, json
import jax
jax.config.update("jax_compilation_cache_dir", {cache!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
import vpt_jax
from vpt_jax.config import base
config = base("digits", {method!r}, "vit_nano")
config.epochs, config.data.split = {epochs}, "train800"
config.batch_size = 64  # on both sides
"""
SINGLE = """
config.optim.base_lr, config.optim.weight_decay = {base_lr}, {decay}
config.data.test_examples = 1  # the grid alone, as on the other side
result = vpt_jax.tune(config, {workdir!r})
print(json.dumps({{"top1": result["val_top1"]}}))
"""
TOGETHER = """
from vpt_jax.sweeps import run, selection
config.data.split, config.sweep.halving = "train800val200", {halving}
config.sweep.seeds = (42,)
class Chosen(Exception): pass
def stop(self, chosen, *_): raise Chosen(json.dumps(dict(top1=chosen.validation,
    base_lr=chosen.base_lr, weight_decay=chosen.weight_decay)))
run.JobRun._test = stop  # the grid alone, as on the other side
try: run.sweep(config, {workdir!r})
except Chosen as chosen: print(chosen)
"""


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="linear")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=40)
    parser.add_argument("--halving", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(measure(args), indent=1))


def measure(args) -> dict:
    """The grid at once, then point by point."""
    from vpt_jax.config import base
    from vpt_jax.sweeps import plan

    [unit] = plan.units(base("digits", args.method, "vit_nano"))
    points = unit.trials
    with tempfile.TemporaryDirectory() as folder:
        head = ONE.format(cache=f"{folder}/xla", method=args.method, epochs=args.epochs)
        grid = TOGETHER.format(halving=0, workdir=f"{folder}/grid")
        together, chosen = run(head + grid)
        halved = None
        if args.halving:
            grid = TOGETHER.format(halving=args.halving, workdir=f"{folder}/halved")
            seconds, fewer = run(head + grid)
            rounds = plan.rungs(args.epochs, args.halving, len(points))
            passes = sum(epochs * trials for epochs, trials in rounds)
            halved = {
                "seconds": round(seconds, 1),
                "rounds": rounds,
                "image_passes_saved_percent": round(
                    100 - 100 * passes / (args.epochs * len(points))
                ),
                "chosen": fewer,
                "agrees_with_the_full_grid": fewer == chosen,
            }
        apart = []
        # Spread over the grid, so that fewer processes are a fair sample.
        step = max(1, len(points) // args.processes)
        for k, point in enumerate(points[::step][: args.processes]):
            workdir = f"{folder}/{k}"
            one = SINGLE.format(
                base_lr=point.base_lr, decay=point.weight_decay, workdir=workdir
            )
            apart.append(run(head + one))
    # The first process compiled for the others.
    mean = sum(s for s, _ in apart[1:]) / max(1, len(apart) - 1)
    scripted = apart[0][0] + mean * (len(points) - 1)
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "method": args.method,
        "epochs": args.epochs,
        "points": len(points),
        "at_once_seconds": round(together, 1),
        "processes_run": len(apart),
        "one_process_seconds": round(mean, 1),
        "scripted_seconds": round(scripted, 1),
        "ratio": round(scripted / together, 1),
        "chosen": chosen,
        "best_of_the_processes": max(result["top1"] for _, result in apart),
        "halving": halved,
    }


def run(program: str) -> tuple[float, dict]:
    """(seconds, what it printed last) of a fresh process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    seconds = time.perf_counter() - started
    return seconds, json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
