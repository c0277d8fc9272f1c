"""Pre-trained files to backbone parameters: one table per format, one line below.

A file's container (`files.py`) and its names (the tables) are independent; the format
is recognised by the names.
"""

import dataclasses
import gc
import pathlib
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
from flax import nnx

from vpt_jax import backbones
from vpt_jax.checkpoints import (
    big_vision,
    fetch,
    files,
    huggingface,
    native,
    openai,
    original_vit,
    releases,
    timm,
    zoo,
)
from vpt_jax.checkpoints.format import read, recognise
from vpt_jax.errors import UserError
from vpt_jax.types import Path, Tree, flatten, unflatten

FORMATS = (
    *native.FORMATS,
    original_vit.FORMAT,
    *big_vision.FORMATS,
    *releases.FORMATS,
    *openai.FORMATS,
    *timm.FORMATS,
    *huggingface.FORMATS,
)
"""More specific ones before those that their files would also match."""


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


def load(
    name: str,
    source: str | None,
    image_size: int,
    *,
    dtype,
    frozen_dtype,
    trained: Callable[[nnx.GraphDef, Tree], Collection[Path]] = lambda *_: (),
    corners: bool = True,
    on_host: bool = False,
) -> Pretrained:
    """Backbone `name` with the weights of `source`.

    Args:
        name: A backbone of `backbones.CONFIGS`.
        source: A path, `https://`, `gs://` or `hf://` address; None for the zoo's
            file; 'random' for an untrained backbone.
        image_size: Pixels; position embeddings are resized to it.
        dtype: Compute type of the backbone.
        frozen_dtype: What the frozen weights are stored in.
        trained: Of the split backbone (shapes): paths of the weights that will be
            trained, which are stored in float32.
        corners: Whether position embeddings keep their corners: see `ViTConfig`.
        on_host: Leave the weights there, for those that one device has no room for.

    Raises:
        UserError: Nothing there, unreadable, or not this architecture.
    """
    config = _config(name, image_size, corners)
    graphdef, shapes, exact = _plain(config, dtype, frozen_dtype, trained)
    if source == "random":
        model = backbones.FAMILIES[type(config)](config, dtype=dtype, rngs=nnx.Rngs(0))
        params = nnx.as_pure(nnx.state(model))
        stored = {
            path: leaf if path in exact else leaf.astype(frozen_dtype)
            for path, leaf in flatten(params).items()
        }
        params = unflatten(params, stored)
        params = jax.device_get(params) if on_host else params
        return Pretrained(config, graphdef, params, source, source)
    source, path, sha256 = locate(name, source)
    arrays = load_arrays(path, config, shapes, jnp.dtype(frozen_dtype), exact)
    if not on_host:
        for leaf in list(arrays):  # one array at a time: never a whole second copy
            arrays[leaf] = jax.block_until_ready(jax.device_put(arrays[leaf]))
            gc.collect(0)  # jax lets go of what it has copied only then
    return Pretrained(config, graphdef, unflatten(shapes, arrays), source, sha256)


def abstract(
    name: str, image_size: int, *, dtype, frozen_dtype, trained, corners: bool = True
) -> Pretrained:
    """What `load` gives, with shapes in place of the weights: no file is opened."""
    config = _config(name, image_size, corners)
    graphdef, shapes, exact = _plain(config, dtype, frozen_dtype, trained)
    stored = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype if path in exact else frozen_dtype)
        for path, x in flatten(shapes).items()
    }
    return Pretrained(config, graphdef, unflatten(shapes, stored), "shapes", "shapes")


def _config(name: str, image_size: int, corners: bool):
    config = backbones.get_config(name, image_size)
    return config if corners else dataclasses.replace(config, corners=False)


def _plain(
    config, dtype, frozen_dtype, trained
) -> tuple[nnx.GraphDef, Tree, Collection[Path]]:
    """A backbone's structure, its shapes, and the paths of what is stored in float32
    where the rest is not."""
    graphdef, state = nnx.split(backbones.abstract(config, dtype))
    shapes = nnx.as_pure(state)
    if jnp.dtype(frozen_dtype) == jnp.float32:
        return graphdef, shapes, ()
    return graphdef, shapes, trained(graphdef, shapes)


def trusted(name: str, source: object) -> str | None:
    """A checkpoint that a manifest names, if it may be opened without asking.

    Whoever wrote an export chose what its manifest says: an address in it would have
    this machine fetch and open whatever they like.

    Args:
        name: The backbone that the manifest names.
        source: What it names as its checkpoint: a local path, 'random', the zoo's
            address of this backbone (also without its revision), or None for that;
            anything else is refused.

    Returns:
        `source`, with the revision where the zoo's has one.

    Raises:
        UserError: Another address, which the user has to name.
    """
    if source is None:
        return None
    if not isinstance(source, str) or not source:
        raise UserError(f"the manifest names {source!r}, which is no checkpoint's name")
    own = zoo.ZOO[name].url if name in zoo.ZOO else None
    if own is not None and source == own.split("@")[0]:
        return own  # as it was written before revisions were recorded
    if source == own or fetch.is_local(source):
        return source
    raise UserError(
        f"the manifest names {source} as the checkpoint of {name}, an address that is "
        f"not this project's own; give config.backbone.checkpoint={source} to use it"
    )


def load_arrays(
    path: pathlib.Path, config, shapes: Tree, dtype, exact: Collection[Path] = ()
) -> dict:
    """Every parameter of the backbone of `config`, by path, from a file.

    Args:
        path: A file of one of `files.READERS` with the names of one of `FORMATS`.
        config: The architecture that the file must hold.
        shapes: A tree of the backbone's parameters, of which shapes are used.
        dtype: What to store the parameters in.
        exact: Paths of those that are stored in float32 all the same.

    Raises:
        UserError: Unreadable, of no known format, or not this architecture.
    """
    wanted = {leaf: value.shape for leaf, value in flatten(shapes).items()}
    with files.opened(path) as file:
        return read(
            file, recognise(file, config, FORMATS), config, wanted, dtype, exact
        )


def locate(name: str, source: str | None) -> tuple[str, pathlib.Path, str]:
    """(address, local file, sha256) of a checkpoint, downloaded where needed."""
    entry = zoo.lookup(name) if source is None else zoo.ZOO.get(name)
    if entry is None or source not in (None, entry.url):
        assert source is not None
        path = fetch.fetch(source)
        return source, path, fetch.sha256_of(path)
    problem = files.lacking(entry.url)  # before gigabytes are fetched in vain
    if problem:
        raise UserError(f"checkpoint {entry.url} {problem}{zoo.instead(entry)}")
    path = fetch.fetch(zoo.address(entry), entry.sha256)
    return entry.url, path, zoo.verify(entry, path)
