"""This project's own files: safetensors with the backbone's own parameter names.

What `save` writes of any backbone, `checkpoints.load` reads again.
"""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from safetensors.numpy import save_file

from vpt_jax.backbones import FAMILIES
from vpt_jax.checkpoints.format import Format, Source
from vpt_jax.types import Path, path_name


class _Native(Format):
    """Every name is our own."""

    def source(self, path: Path) -> Source:
        return Source(path_name(path), part=0, parts=1, fresh=False)


FORMATS = tuple(
    _Native(
        name="vpt_jax's",
        families=tuple(FAMILIES),
        names={},
        marks=(mark,),
        size=lambda shape: {},  # names and shapes say it all
        layout="own",
    )
    for mark in ("patch_embed.kernel", "stem.kernel")
)


def save(path: pathlib.Path, leaves: Mapping[Path, np.ndarray | jax.Array]) -> None:
    """Write the parameters and statistics of a backbone by path, in float32."""
    arrays = {
        path_name(leaf): np.ascontiguousarray(value, np.float32)
        for leaf, value in leaves.items()
    }
    save_file(arrays, path)
