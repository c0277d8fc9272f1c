"""A StableHLO export as a function of images; needs jax and nothing else."""

import pathlib

import jax
import numpy as np
from jax import export


def load(folder, tuned="tuned.npz"):
    """uint8 (b, h, w, 3) to {'logits', 'probabilities'}; `tuned`: of any task."""
    folder = pathlib.Path(folder)
    program = export.deserialize(bytearray((folder / "program.jax").read_bytes()))
    tuned, frozen = (dict(np.load(folder / name)) for name in (tuned, "frozen.npz"))
    tuned, frozen = jax.device_put((tuned, frozen))
    run = jax.jit(program.call)
    return lambda images: run(tuned, frozen, images)
