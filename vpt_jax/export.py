"""`export/`: the tuned tensors of one trial, and all that is needed to use them.

tuned.safetensors   trained tensors and statistics, by name
manifest.json       configuration, backbone and its sha256, classes, metrics
backbone.*          where asked for, and for full fine-tuning: the backbone with what
                    was tuned merged into it; of a ViT backbone.npz in the original
                    format, else backbone.safetensors in our own

The manifest states the number of its format. What a version of this package wrote, all
later ones read: they know every earlier format, and fields may be added to one; one
that says something else than before gets a new number, which earlier versions refuse.
"""

import functools

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vpt_jax import parallel
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import native, original_vit
from vpt_jax.checkpoints.fetch import sha256_of
from vpt_jax.errors import UserError
from vpt_jax.model import merged_backbone
from vpt_jax.network import Network
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.files import read_json, size_of, whole, write_json
from vpt_jax.storage.paths import Folder
from vpt_jax.types import Tree, flatten, path_name, unflatten

TENSORS, MANIFEST, BACKBONE = "tuned.safetensors", "manifest.json", "backbone"
FORMAT = 1
READ = (1,)
"""The formats that exist; tests/exchange/golden holds an export of each."""


def write(
    directory: Folder,
    network: Network,
    trainable: Tree,
    stats: Tree,
    about: dict,
    with_backbone: bool,
) -> int:
    """Write one trial's tensors, without a trial axis.

    Args:
        directory: The folder.
        network, trainable, stats: What was tuned.
        about: What the manifest says besides.
        with_backbone: Whether the backbone with what was tuned is written as well.

    Returns:
        Bytes of tuned.safetensors.
    """
    _, of_trainable, _, of_stats = network.served.parts
    groups = (
        ("trainable", trainable, flatten(of_trainable)),
        ("stats", stats, flatten(of_stats)),
    )
    tensors = {
        f"{group}.{path_name(path)}": np.asarray(leaf, order="C")
        for group, tree, served in groups
        for path, leaf in flatten(tree).items()
        if path in served
    }
    manifest = {
        "format": FORMAT,
        "backbone": about["config"]["backbone"]["name"],
        "checkpoint_sha256": network.pretrained.sha256,
        **about,
    }

    def done() -> None:
        with whole(directory / TENSORS) as temporary:
            save_file(tensors, temporary)
            digest = sha256_of(temporary)
        write_json(directory / MANIFEST, {**manifest, "tuned_sha256": digest})
        if with_backbone:
            _write_backbone(directory, network, trainable, stats)

    parallel.first(done)
    return parallel.from_first(lambda: size_of(directory / TENSORS))


def _write_backbone(
    directory: Folder, network: Network, trainable: Tree, stats: Tree
) -> None:
    """Write the backbone alone, such that a linear head on it gives the same logits."""
    config = network.pretrained.config
    leaves = flatten(_merged(network, trainable, stats))
    if type(config) is ViTConfig:
        with whole(directory / f"{BACKBONE}.npz") as temporary:
            original_vit.save(temporary, leaves, config.heads)
    else:
        with whole(directory / f"{BACKBONE}.safetensors") as temporary:
            native.save(temporary, leaves)


def check_backbone(network: Network) -> None:
    """Refuse what `write` could not write, before anything is trained.

    Raises:
        UserError: The method changes more than weights of the backbone.
    """
    _, trainable, _, stats = network.parts
    merged = jax.eval_shape(functools.partial(_merged, network), trainable, stats)
    added = flatten(merged).keys() - flatten(network.pretrained.params).keys()
    if added:
        raise UserError(
            f"{path_name(min(added, key=str))} cannot be merged into the backbone; set "
            "config.export_backbone=False"
        )


def _merged(network: Network, trainable: Tree, stats: Tree) -> Tree:
    graphdef, _, frozen, _ = network.parts
    backbone = merged_backbone(nnx.merge(graphdef, trainable, frozen, stats))
    return nnx.as_pure(nnx.state(backbone))


def read_manifest(directory: Folder) -> dict:
    """The manifest of an export."""
    manifest = read_json(directory / MANIFEST)
    if manifest is None:
        raise UserError(
            f"{directory} holds no {MANIFEST}; give the workdir of a finished run or "
            "its export folder"
        )
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found not in READ:
        raise UserError(
            f"{directory / MANIFEST} is of format {found!r}; this version reads "
            f"{', '.join(map(str, READ))}: update vpt_jax"
        )
    return manifest


def read_tensors(
    directory: Folder, network: Network, manifest: dict
) -> tuple[Tree, Tree]:
    """(trainable, stats), checked by name and shape, and by their hash.

    Raises:
        UserError: Not readable, or of another model; lists what differs. Or changed
            since the manifest was written; the first exports state no hash.
    """
    path = directory / TENSORS
    try:
        tensors = load_file(at_hand(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    _, trainable, _, stats = network.parts
    groups = {"trainable": trainable, "stats": stats}
    wanted = {
        f"{group}.{path_name(leaf)}": shape.shape
        for group, tree in groups.items()
        for leaf, shape in flatten(tree).items()
    }
    for name, array in tensors.items():
        if wanted.get(name) == () and array.shape == (1,):  # as it once was written
            tensors[name] = array.reshape(())
    found = {name: array.shape for name, array in tensors.items()}
    if found != wanted:
        differing = sorted(dict(found.items() ^ wanted.items()))
        raise UserError(
            f"{path} holds other tensors than its manifest describes: "
            f"{', '.join(differing[:12])}"
        )
    _verify(directory, manifest)
    return tuple(
        unflatten(tree, {p: tensors[f"{group}.{path_name(p)}"] for p in flatten(tree)})
        for group, tree in groups.items()
    )


def _verify(directory: Folder, manifest: dict) -> None:
    """Refuse tensors that are not those the manifest was written with.

    Raises:
        UserError: They have another hash. The first exports state none.
    """
    path, wanted = directory / TENSORS, manifest.get("tuned_sha256")
    if wanted is not None and sha256_of(at_hand(path)) != wanted:
        raise UserError(
            f"{path} is not the file that its manifest was written with: it is damaged "
            "or was changed; get it again"
        )
