"""Memory and compile time of a large backbone.

python -m benchmarks.large_backbone --backbone vit_h14

One process each, so that peaks are their own:

    load   a synthetic file, kept in bfloat16: peak memory over the size of the file
    step   one VPT-Deep step, batch 1, P = 10, float32: seconds to compile and to run,
           peak memory; blocks as a loop and one by one, and beside it ViT-Ti/16
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from benchmarks import train_step
from vpt_jax import backbones, checkpoints
from vpt_jax.types import flatten, path_name


def main() -> None:
    """Run every part in a process of its own, or one part in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_h14")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--file", type=pathlib.Path)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for stored in ("bfloat16", "float32"):
            args.file = pathlib.Path(folder) / "synthetic.safetensors"
            size = write(args.backbone, args.file, stored)
            found = own_process(args, "load")
            results[f"load from {stored}"] = found | {
                "file_mb": round(size / 1e6),
                "peak_over_file": round(found["peak_mb"] * 1e6 / size, 3),
            }
    for part in list(PARTS)[1:]:
        results[part] = own_process(args, part)
    print(json.dumps(results, indent=1))


def own_process(args, part: str) -> dict:
    """What a part prints."""
    command = [sys.executable, "-m", "benchmarks.large_backbone", "--part", part]
    command += ["--backbone", args.backbone, "--file", str(args.file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(backbone: str, path: pathlib.Path, stored: str) -> int:
    """Write zeros of every shape under our own names; returns the bytes."""
    plain = backbones.abstract(backbones.get_config(backbone))
    shapes = nnx.as_pure(nnx.state(plain))
    dtype = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}[stored]
    leaves = flatten(shapes).items()
    save_file({path_name(k): np.zeros(v.shape, dtype) for k, v in leaves}, path)
    return path.stat().st_size


def peak_mb() -> float:
    """Of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def load(args) -> dict:
    """Peak memory of a process that loads the file in bfloat16."""
    size = backbones.get_config(args.backbone).image_size
    loaded = checkpoints.load(
        args.backbone,
        str(args.file),
        size,
        dtype=jnp.bfloat16,
        frozen_dtype="bfloat16",
    )
    jax.block_until_ready(loaded.params)
    return {"peak_mb": peak_mb()}


def one_step(backbone: str | None, scan: bool):
    """A training step of the program that trains: batch 1, P = 10."""

    def run(args) -> dict:
        chosen = backbone or args.backbone
        shape = argparse.Namespace(
            backbone=chosen,
            batch=1,
            length=10,
            image_size=backbones.get_config(chosen).image_size,
            trials=1,
            repeats=1,
            precision="float32",
            scan=scan,
            remat=False,
            method="vpt_deep",
            part="train",
            cache=None,
        )
        measured = train_step.measure(shape)
        kept = ("compile_seconds", "step_seconds", "peak_process_mb")
        return {key: measured[key] for key in kept}

    return run


PARTS = {
    "load": load,
    "step, loop": one_step(None, True),
    "step, unrolled": one_step(None, False),
    "step of vit_ti16, unrolled": one_step("vit_ti16", False),
}


if __name__ == "__main__":
    main()
