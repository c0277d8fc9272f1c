"""Training on all devices there are, in the ways there are: to be run as a program.

python -m training.sharded FOLDER

Writes the state and logits of each case to FOLDER, and what its program consists of.
"""

import collections
import dataclasses
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from training import tiny

from vpt_jax import parallel
from vpt_jax.training import programs

DEEPER = dataclasses.replace(tiny.CONFIG, depth=4)
CASES = {
    "data": (1, {"batch_size": 8}),
    "trials": (8, {}),
    "both": (4, {}),
    "parts": (4, {"shard": True}),
    "loop": (1, {"batch_size": 8, "shard": True, "scan": True, "shape": DEEPER}),
}
"""Trials, and what differs from `tiny.make_setup`."""

COLLECTIVE = re.compile(
    r"= .* (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast|ragged-all-to-all)(?:-start)?\("
)

STEPS = 3


@jax.enable_x64(True)  # rounding in float32 grows beyond 1e-5 in a few steps
def train(name: str) -> tuple:
    """(state, logits of a batch) after an epoch, and what the program is made of."""
    trials, changes = CASES[name]
    setup = tiny.make_setup(dtype=jnp.float64, **changes)
    hyper = tiny.make_hyper([0.1] * trials, [1e-3] * trials, list(range(trials)))
    mesh = parallel.make_mesh(trials, setup.batch_size)
    hyper = jax.device_put(hyper, parallel.over_trials(mesh))
    images, labels = jax.device_put(tiny.make_data(), parallel.replicated(mesh))
    frozen = programs.place_frozen(setup.network, mesh)
    state = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    rest = frozen, images, labels, hyper, jnp.int32(0), jnp.int32(STEPS)
    chunk = programs.make_chunk(setup, mesh).lower(state, *rest).compile()
    facts = {
        "mesh": dict(mesh.shape),
        "collectives": collectives(chunk.as_text()),
        "lines": [x for x in chunk.as_text().splitlines() if COLLECTIVE.search(x)],
        "frozen": sum(x.nbytes for x in jax.tree.leaves(frozen)),
        "own": sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(frozen)),
    }
    state = chunk(state, *rest)
    outputs = programs.make_outputs(setup.network, mesh)
    found = state, outputs(state.trainable, state.stats, frozen, images)
    return jax.tree.leaves(jax.device_get(found)), facts


def collectives(text: str) -> dict[str, int]:
    """How often each kind occurs; those outside of any loop apart."""
    found, where = collections.Counter(), ""
    for line in text.splitlines():
        if not line.startswith(" ") and line.endswith("{"):
            where = ", outside" if line.startswith("ENTRY") else ""
        kind = COLLECTIVE.search(line)
        if kind:
            found[kind[1] + where] += 1
    return found


def main(folder: pathlib.Path) -> None:
    """Run every case."""
    programs = {}
    for name in CASES:
        leaves, programs[name] = train(name)
        np.savez(folder / f"{name}.npz", *leaves)
    (folder / "programs.json").write_text(json.dumps(programs))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
