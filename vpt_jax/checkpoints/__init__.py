"""Pre-trained files to backbone parameters: one table per format, one line below."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx

from vpt_jax import backbones
from vpt_jax.checkpoints import fetch, original_vit, zoo
from vpt_jax.errors import UserError
from vpt_jax.types import flatten, unflatten

FORMATS = {".npz": original_vit.load}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A backbone with its weights, and where they came from.

    Attributes:
        config: The architecture.
        graphdef, params: The split backbone; `params` are float arrays.
        source: What the user named, or the zoo's address; 'random' for none.
        sha256: Of the file; 'random' for none.
    """

    config: object
    graphdef: nnx.GraphDef
    params: object
    source: str
    sha256: str


def load(name: str, source: str | None, image_size: int, *, dtype, frozen_dtype):
    """Backbone `name` with the weights of `source`.

    Args:
        name: A backbone of `backbones.CONFIGS`.
        source: A path, `https://` or `gs://` address; None for the zoo's file;
            'random' for an untrained backbone.
        image_size: Pixels; position embeddings are resized to it.
        dtype: Compute type of the backbone.
        frozen_dtype: What the weights are stored in.

    Raises:
        UserError: Nothing there, unreadable, or not this architecture.
    """
    config = backbones.get_config(name, image_size)
    graphdef, state = nnx.split(backbones.abstract(config, dtype))
    shapes = nnx.as_pure(state)
    if source == "random":
        model = backbones.FAMILIES[type(config)](config, dtype=dtype, rngs=nnx.Rngs(0))
        params = nnx.as_pure(nnx.state(model))
        return Pretrained(config, graphdef, params, source, source)
    source, path, sha256 = locate(name, source)
    if path.suffix not in FORMATS:
        raise UserError(
            f"checkpoint {path} has the ending {path.suffix!r}; known: "
            f"{', '.join(FORMATS)}"
        )
    wanted = {leaf: value.shape for leaf, value in flatten(shapes).items()}
    arrays = FORMATS[path.suffix](path, config, wanted, jnp.dtype(frozen_dtype))
    for leaf in list(arrays):  # one array at a time: never a whole second copy
        arrays[leaf] = jax.device_put(arrays[leaf])
    return Pretrained(config, graphdef, unflatten(shapes, arrays), source, sha256)


def locate(name: str, source: str | None) -> tuple[str, pathlib.Path, str]:
    """(address, local file, sha256) of a checkpoint, downloaded where needed."""
    if source is not None:
        path = fetch.fetch(source)
        return source, path, fetch.sha256_of(path)
    entry = zoo.lookup(name)
    path = fetch.fetch(entry.url, entry.sha256)
    return entry.url, path, zoo.verify(entry, path)
