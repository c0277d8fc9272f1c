"""An export as one StableHLO program for CPU, CUDA and TPU, which jax alone runs.

program.jax      (tuned, frozen, images) -> logits and probabilities, any batch
tuned.npz        what was tuned; that of another task of the same shapes will do
frozen.npz       the rest of the network
program.json     what the program takes and gives, and which jax reads it
load_stablehlo.py    these files to a function, in ten lines

The program is lowered without what the platforms have of their own (cuDNN's attention,
Pallas kernels): JAX promises to read only what is plain StableHLO in later versions.
"""

import datetime
import functools
import importlib.resources
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from vpt_jax import parallel
from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.network import Network
from vpt_jax.objectives import classification
from vpt_jax.serving.classifier import Classifier
from vpt_jax.storage.files import whole, write_bytes, write_json, write_text
from vpt_jax.storage.paths import Folder
from vpt_jax.types import Tree, flatten, path_name, unflatten

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, ABOUT, CODE = "program.jax", "program.json", "load_stablehlo.py"
TUNED, FROZEN = "tuned.npz", "frozen.npz"

Named = dict[str, jax.Array]
"""Arrays by name: what other programs can put together without this package."""


def write(model: Classifier, directory: Folder) -> list[Folder]:
    """Write the files beside an export.

    Args:
        model: The export, loaded in float32.
        directory: Of the export.

    Returns:
        The files.

    Raises:
        UserError: Not a classifier, or no flatbuffers here.
    """
    network = model.network
    if not importlib.util.find_spec("flatbuffers"):
        raise UserError("StableHLO needs flatbuffers: pip install 'vpt_jax[stablehlo]'")
    if network.objective is not classification:
        raise UserError("only classifiers can be written as StableHLO")
    tuned = named({"trainable": model.trainable, "stats": model.stats})
    frozen = named(network.parts[2])
    program = lowered(network, tuned, frozen)
    write_bytes(directory / PROGRAM, bytes(program.serialize()))
    for name, arrays in ((TUNED, tuned), (FROZEN, frozen)):
        stored: dict = jax.device_get(arrays)
        with whole(directory / name) as temporary, open(temporary, "wb") as file:
            np.savez(file, **stored)
    write_json(directory / ABOUT, _about(model, program))
    code = importlib.resources.files("vpt_jax") / "exchange" / CODE
    write_text(directory / CODE, code.read_text())
    return [directory / name for name in (PROGRAM, TUNED, FROZEN, ABOUT, CODE)]


def named(tree: Tree) -> Named:
    """The leaves of a tree by name."""
    return {path_name(path): jnp.asarray(x) for path, x in flatten(tree).items()}


def lowered(network: Network, tuned: Named, frozen: Named) -> jax_export.Exported:
    """The program for arrays of these shapes."""
    images = jax_export.symbolic_shape(", ".join(_image_shape(network)))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (tuned, frozen)
    )
    # To trace for a CPU is to leave out what GPUs and TPUs have of their own.
    mesh = Mesh(np.array(jax.devices("cpu")[:1]).reshape(1, 1), ("trial", "data"))
    program = parallel.traced_on(mesh, _program(network))
    return jax_export.export(jax.jit(program), platforms=PLATFORMS)(
        *shapes, jax.ShapeDtypeStruct(images, jnp.uint8)
    )


def _program(network: Network) -> Callable:
    graphdef, trainable, wanted, stats = network.parts

    def program(tuned: Named, frozen: Named, images: UInt8[Array, "B h w 3"]):
        groups = _tree({"trainable": trainable, "stats": stats}, tuned)
        parts = groups["trainable"], _tree(wanted, frozen), groups["stats"]
        x = images.astype(jnp.float32)
        if _resizes(network):
            x = legacy_resize(x, network.image_size)
        with jax.default_matmul_precision("float32"):
            model = nnx.merge(graphdef, *parts)
            logits = model(preprocess.normalize(x, network.preset))
        return {"logits": logits, "probabilities": jax.nn.softmax(logits)}

    return program


def _tree(like: Tree, arrays: Named) -> Tree:
    return unflatten(like, {path: arrays[path_name(path)] for path in flatten(like)})


def _resizes(network: Network) -> bool:
    """Whether the program resizes; Pillow's resizes it leaves to its caller."""
    return network.preset.resize == "legacy" and network.preset.shorter is None


def _image_shape(network: Network) -> tuple[str, str, str, str]:
    size = str(network.image_size)
    return ("b", "h", "w", "3") if _resizes(network) else ("b", size, size, "3")


def legacy_resize(
    images: Float[Array, "B h w 3"], size: int
) -> Float[Array, "B {size} {size} 3"]:
    """`preprocess.resize_host` of a batch whose height and width need not be known."""
    for axis in (1, 2):
        length = jnp.asarray(images.shape[axis], jnp.int32)
        scale = length.astype(jnp.float32) / jnp.float32(size)
        place = jnp.arange(size, dtype=jnp.float32) * scale
        lower = jnp.minimum(place.astype(jnp.int32), length - 1)
        upper = jnp.minimum(lower + 1, length - 1)
        weight = jnp.expand_dims(
            place - jnp.floor(place), [n for n in range(4) if n != axis]
        )
        take = functools.partial(jnp.take, images, axis=axis)
        images = take(lower) * (1 - weight) + take(upper) * weight
    return images


def _about(model: Classifier, program: jax_export.Exported) -> dict:
    network, preset = model.network, model.network.preset
    return {
        "format": FORMAT,
        "classes": list(model.classes),
        "platforms": list(program.platforms),
        "images": {
            "dtype": "uint8, RGB",
            "shape": list(_image_shape(network)),
            "before": None
            if _resizes(network)
            else {"resize": preset.resize, "shorter": preset.shorter},
        },
        "outputs": ["logits", "probabilities"],
        "compatibility": {
            "jax": jax.__version__,
            "date": datetime.date.today().isoformat(),
            "calling_convention": program.calling_convention_version,
            "reads": "JAX versions from three weeks older to six months newer than "
            "this one, by its own promise for exports; export again for others",
        },
    }
