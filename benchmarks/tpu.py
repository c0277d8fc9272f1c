"""What a training step costs on a TPU that is not there, by the compiler's estimate.

python -m benchmarks.tpu --backbone vit_b16 --batch 64 --length 50 --on v5e:1x1

Needs libtpu (`pip install '.[plan-tpu]'`) and no TPU. `cycles` of each part are those
that XLA's schedule gives its operations; kernels, which it cannot see into, are counted
beside them (`vpt_jax/planning/chips.py` says how). Nothing is run: what this finds is a
comparison of programs, no measurement.
"""

import argparse
import collections
import json

import jax
import numpy as np

from benchmarks import train_step
from vpt_jax import parallel, resolution
from vpt_jax.planning import chips, compiled, hlo, topology
from vpt_jax.training import inputs

PARTS = (
    "attend",
    "projections",
    "mlp",
    "norm",
    "edits",
    "embed",
    "pool",
    "head",
    "optimizer",
)
"""Names of scopes in the program."""


def main() -> None:
    """Parse the arguments, compile, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    train_step.add_shape(parser)
    parser.add_argument("--on", default="v5e:1x1", help="e.g. v5e:2x4")
    parser.add_argument("--text", help="file that gets the compiled program")
    parser.set_defaults(batch=64, precision="bfloat16")
    args = parser.parse_args()
    program = compile_step(args)
    if args.text:
        with open(args.text, "w") as file:
            file.write(program.as_text() or "")
    print(json.dumps(report(args, program), indent=1))


def compile_step(args) -> jax.stages.Compiled:
    """The chunk of training steps, for the devices `args.on`."""
    config = train_step.configuration(args)
    experiment = resolution.resolve(config, "tpu")
    labels = np.zeros(args.batch, np.int32)
    setup = experiment.make_setup(labels, experiment.network.abstract_backbone())
    devices = topology.devices(args.on)
    mesh = parallel.make_mesh(args.trials, args.batch, devices)
    images = train_step.pixels(args)
    fed = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (images, labels))
    place = inputs.RESIDENT
    arguments = compiled.chunk_arguments(setup, mesh, place, fed, args.trials)
    return compiled.compile_on(mesh, compiled.chunk(setup, mesh, place, *arguments))


def report(args, program: jax.stages.Compiled) -> dict:
    """Costs of one step, in millions of cycles, by part."""
    chip = chips.chip_of(args.on)
    text = program.as_text() or ""
    found = hlo.operations(text)
    parts: dict[str, dict[str, float]] = collections.defaultdict(
        lambda: {"xla": 0.0, "kernels": 0.0}
    )
    for operation in found:
        kind = "kernels" if operation.flops else "xla"
        cycles = chip.seconds(operation) * chip.clock
        for part in (operation.part(PARTS), "all"):
            parts[part][kind] += cycles / 1e6
    moved = collections.Counter()
    for collective in hlo.collectives(text):
        moved[collective.kind] += collective.bytes
    kernels = sum(operation.bytes for operation in found)
    memory, cost = program.memory_analysis(), program.cost_analysis()
    assert memory and cost  # XLA has them for every program
    return {
        "on": args.on,
        "jax": jax.__version__,
        "backbone": args.backbone,
        "shape": {"trials": args.trials, "batch": args.batch, "length": args.length},
        "precision": args.precision,
        "million_cycles": {
            part: {kind: round(cycles, 2) for kind, cycles in kinds.items()}
            for part, kinds in sorted(parts.items())
        },
        "milliseconds": round(sum(parts["all"].values()) * 1e9 / chip.clock, 2),
        "temporaries_mb": memory.temp_size_in_bytes // 10**6,
        "accessed_gb": round(cost["bytes accessed"] / 1e9, 1),
        "accessed_by_kernels_gb": round(kernels / 1e9, 1),
        "collective_bytes": moved,
    }


if __name__ == "__main__":
    main()
