"""From an export, or the folder of a run or a sweep, to a `Classifier`, or to a
`Segmenter` where it gives each pixel a class."""

import os

import jax
import jax.numpy as jnp

from vpt_jax import export, resolution
from vpt_jax import precision as precisions
from vpt_jax.checkpoints import trusted
from vpt_jax.errors import UserError
from vpt_jax.objectives import OBJECTIVES
from vpt_jax.progress import say
from vpt_jax.serving.classifier import MAX_BATCH, Classifier
from vpt_jax.serving.segmenter import Segmenter
from vpt_jax.storage import hub
from vpt_jax.storage.paths import Folder, located


def load(
    path: str | os.PathLike,
    checkpoint: str | None = None,
    *,
    seed: int | None = None,
    precision: str | None = None,
    max_batch: int = MAX_BATCH,
) -> Classifier:
    """A tuned model from a workdir or an export folder.

    Args:
        path: The folder, or hf://owner/name[@revision] of the Hugging Face Hub.
        checkpoint: Where the backbone is, if no longer where the run found it.
        seed: Of a run with several; None: the median by its validation score of those
            that did not diverge, or the first of them where none was validated.
        precision: 'float32' or 'bfloat16'; None: what it was tuned in, or float32 on
            a CPU and on a GPU without bfloat16.
        max_batch: See `Classifier`.

    Raises:
        UserError: No export there, no such seed, or the backbone is not the one that it
            was tuned on.
    """
    return open_export(*find(path, seed), checkpoint, precision, max_batch)


def find(path: str | os.PathLike, seed: int | None) -> tuple[Folder, dict]:
    """The export that `load` takes, and its manifest."""
    if hub.is_address(path):
        return _from_hub(str(path))
    return _choose(_exports(located(path)), seed)


def open_export(
    directory: Folder,
    manifest: dict,
    checkpoint: str | None = None,
    precision: str | None = None,
    max_batch: int = MAX_BATCH,
) -> Classifier:
    """The model of an export; see `load`."""
    if precision is None:
        known = precisions.best() == "bfloat16"
        precision = manifest["config"]["precision"] if known else "float32"
    precisions.check(precision)
    if checkpoint is None:
        backbone = manifest["config"]["backbone"]
        trusted(backbone["name"], backbone["checkpoint"])
    choice = resolution.restore_network(
        manifest["config"],
        len(manifest["classes"]),
        OBJECTIVES[manifest["objective"]],
        checkpoint,
        precision,
    )
    network = choice.make().served
    if network.pretrained.sha256 != manifest["checkpoint_sha256"]:
        raise UserError(
            f"{directory} was tuned on a {manifest['backbone']} with sha256 "
            f"{manifest['checkpoint_sha256']}, but {network.pretrained.source} has "
            f"{network.pretrained.sha256}; give the right config.backbone.checkpoint"
        )
    tensors = export.read_tensors(directory, network, manifest)
    trainable, stats = (jax.tree.map(jnp.asarray, tree) for tree in tensors)
    classes = tuple(manifest["classes"])
    if network.objective.DENSE:
        return Segmenter(network, trainable, stats, classes, manifest, max_batch)
    return Classifier(network, trainable, stats, classes, manifest, max_batch)


def _from_hub(address: str) -> tuple[Folder, dict]:
    """An export of the Hub, and its manifest, which may name no place of its own."""
    directory, commit = hub.snapshot(address, (export.MANIFEST, export.TENSORS))
    manifest = export.read_manifest(directory)
    named = manifest["config"]["backbone"]["checkpoint"]
    if named not in (None, "random"):
        raise UserError(
            f"{address} names {named!r} as its backbone's file; from the Hub, only the "
            "published file of the backbone is taken: give checkpoint=PATH"
        )
    if "tuned_sha256" not in manifest:
        raise UserError(f"{address} does not state the sha256 of {export.TENSORS}")
    if not address.endswith(f"@{commit}"):
        pinned = f"{address.partition('@')[0]}@{commit}"
        say(f"{address} is at {commit}; {pinned} pins it")
    return directory, manifest


def _exports(path: Folder) -> list[Folder]:
    """The export folders of a run, of a sweep's winner, or the folder itself."""
    for place in (path / "final" / "export", path / "export", path):
        several = sorted(place.glob("seed_*/manifest.json"))
        if several:
            return [manifest.parent for manifest in several]
        if (place / "manifest.json").exists():
            return [place]
    raise UserError(
        f"{path} holds no manifest.json; give the workdir of a finished run or its "
        "export folder"
    )


def _choose(folders: list[Folder], seed: int | None) -> tuple[Folder, dict]:
    """The export of one seed, and its manifest; says which where nobody asked."""
    found = [(folder, export.read_manifest(folder)) for folder in folders]
    if seed is not None:
        chosen = [pair for pair in found if pair[1]["seed"] == seed]
        if not chosen:
            seeds = ", ".join(str(manifest["seed"]) for _, manifest in found)
            raise UserError(f"{folders[0]} holds no seed {seed}; there are: {seeds}")
        return chosen[0]
    if len(found) == 1:
        return found[0]
    order = found[0][1]["config"]["seeds"]
    found.sort(key=lambda pair: order.index(pair[1]["seed"]))
    good = [pair for pair in found if pair[1]["status"] == "ok"]
    if not good:
        raise UserError(f"every seed of {folders[0].parent} failed; tune it again")
    scored = [pair for pair in good if pair[1]["validation"] is not None]
    if scored:
        scored.sort(key=lambda pair: pair[1]["validation"])
        chosen, why = scored[(len(scored) - 1) // 2], "the median on validation"
    else:
        chosen, why = good[0], "the first, as none was validated"
    say(f"of {len(found)} seeds, {chosen[1]['seed']} is used: {why}; --seed chooses")
    return chosen
