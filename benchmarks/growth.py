"""What a step costs as prompts get longer, and for several trials at once.

python -m benchmarks.growth --backbone vit_ti16 --batch 16 --lengths 1 10 50 100 200
python -m benchmarks.growth --backbone vit_ti16 --batch 16 --split 4

All programs are compiled first and then take turns, so that what else the machine does
meets all of them alike. `time` and `flops` are ratios to the first: the shortest
prompts, or with `--split T` one trial of the whole batch beside T trials of a part.
"""

import argparse
import json
import statistics

import jax
import jax.numpy as jnp

from benchmarks import train_step
from vpt_jax.training import programs

STEPS = 3  # of a turn, as training runs several in one call


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    train_step.add_shape(parser)
    lengths = [1, 10, 50, 100, 200]
    parser.add_argument("--lengths", nargs="+", type=int, default=lengths)
    parser.add_argument("--split", type=int, help="T; --batch is that of all of them")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if args.split:
        parts = {"trials": args.split, "batch": args.batch // args.split}
        shapes = [{}, parts]
    else:
        shapes = [{"length": length} for length in args.lengths]
    print(json.dumps(measure(args, shapes), indent=1))


def measure(args, shapes: list[dict]) -> dict:
    """Medians of turns, of which the first does not count."""
    steps = [Step(argparse.Namespace(**vars(args) | shape)) for shape in shapes]
    turns = [[one.seconds() for one in steps] for _ in range(1 + args.rounds)][1:]
    medians = [statistics.median(taken) for taken in zip(*turns, strict=True)]
    found = [
        {
            **shape,
            "step_seconds": round(median, 5),
            "time": round(median / medians[0], 3),
            "flops": round(one.flops / steps[0].flops, 3),
            "mb": one.megabytes,
        }
        for shape, one, median in zip(shapes, steps, medians, strict=True)
    ]
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "backbone": args.backbone,
        "batch": args.batch,
        "rounds": args.rounds,
        "steps": found,
    }


class Step:
    """A compiled training step, to be run again and again."""

    def __init__(self, args):
        _, setup, mesh, hyper, self._state = train_step.prepare(args)
        labels = jnp.zeros(args.batch, jnp.int32)
        images = jnp.asarray(train_step.pixels(args))
        bounds = jnp.int32(0), jnp.int32(STEPS)
        self._rest = setup.network.parts[2], images, labels, hyper, *bounds
        chunk = programs.make_chunk(setup, mesh).lower(self._state, *self._rest)
        self._chunk = chunk.compile()
        self.flops = args.trials * train_step.count_flops(setup, gradients=True)
        self.megabytes = self._chunk.memory_analysis().temp_size_in_bytes // 10**6

    def seconds(self) -> float:
        """What a step of a turn takes."""

        def run():
            self._state = self._chunk(self._state, *self._rest)
            return self._state

        [taken] = train_step.timed(run, 1)
        return taken / STEPS


if __name__ == "__main__":
    main()
