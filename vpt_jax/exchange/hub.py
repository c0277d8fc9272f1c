"""An export in a repository of the Hugging Face Hub.

    tuned.safetensors, manifest.json    the export; nothing of this machine in it
    README.md                           the model card
    learning_curve.png, confusion.png   its pictures
    vpt_torch.py, torch.json            where they were written

There is no config.json: the Hub would take the repository for one of transformers.
"""

import copy
import hashlib
import json
import os

from vpt_jax import data, export
from vpt_jax.checkpoints import zoo
from vpt_jax.errors import UserError
from vpt_jax.exchange import pytorch
from vpt_jax.objectives import OBJECTIVES, classification
from vpt_jax.progress import say
from vpt_jax.serving.load import find, open_export
from vpt_jax.storage import hub
from vpt_jax.storage.files import read_json
from vpt_jax.storage.paths import Folder


def push(
    path: str | os.PathLike,
    name: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    seed: int | None = None,
    checkpoint: str | None = None,
) -> str:
    """Write a tuned model to the Hub, in one commit.

    Args:
        path: The workdir of a finished run.
        name: owner/name; the repository is made where there is none.
        private: Whether one that is made is private; None: as the owner has it.
        token: Of the Hub; None: the one that huggingface_hub finds.
        seed: Of a run with several, as in `load`.
        checkpoint: Where the backbone is, as in `load`.

    Returns:
        hf://owner/name@commit, which `load` takes.

    Raises:
        UserError: No finished run of a classifier there, or the Hub refuses.
    """
    library = hub.library()
    directory, manifest = find(path, seed)
    if OBJECTIVES[manifest["objective"]] is not classification:
        raise UserError("only classifiers can be pushed to the Hub")
    result = _result(directory)
    files = _files(name, directory, manifest, result, checkpoint)
    api = library.HfApi(token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.create_commit(
            name,
            [library.CommitOperationAdd(k, content) for k, content in files.items()],
            commit_message=f"Add {manifest['config']['method']['name']}",
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be written: {hub.reason(error)}") from error
    return f"{hub.SCHEME}{name}@{commit.oid}"


def portable(manifest: dict) -> dict:
    """A manifest without where things lay on the machine that wrote it.

    The backbone is then the zoo's, whose hash the manifest states.
    """
    own = copy.deepcopy(manifest)
    config = own["config"]
    config["task"] = data.portable_name(config["task"])
    config["data"]["dir"] = None
    if config["backbone"]["checkpoint"] != "random":
        config["backbone"]["checkpoint"] = None
    if "side_weights" in config["method"]:
        config["method"]["side_weights"] = "random"  # they are among the tuned
    return own


def _result(directory: Folder) -> tuple[Folder, dict]:
    """The folder of the run that wrote an export, and what it says."""
    for folder in (directory, *directory.parents)[:4]:
        found = read_json(folder / "result.json")
        if found is not None:
            return folder, found
    raise UserError(
        f"{directory} lies in no finished run: there is no result.json for the card; "
        "give the workdir"
    )


def _files(
    name: str,
    directory: Folder,
    manifest: dict,
    result: tuple[Folder, dict],
    checkpoint: str | None,
) -> dict[str, bytes]:
    """Content by name in the repository."""
    from vpt_jax.exchange import card  # Matplotlib is slow to import

    files = {export.TENSORS: (directory / export.TENSORS).read_bytes()}
    own = portable(manifest)
    own["tuned_sha256"] = hashlib.sha256(files[export.TENSORS]).hexdigest()
    files[export.MANIFEST] = (json.dumps(own, indent=2) + "\n").encode()
    for file in (pytorch.CODE, pytorch.ABOUT):
        if (directory / file).exists():
            files[file] = (directory / file).read_bytes()
    folder, found = result
    curve = folder / "figures" / "learning_curve.png"
    if curve.exists():
        files["learning_curve.png"] = curve.read_bytes()
    confusion = _confusion(directory, manifest, checkpoint)
    if confusion is not None:
        files["confusion.png"] = confusion
    entry = zoo.ZOO.get(manifest["backbone"])
    files["README.md"] = card.text(name, own, found, entry, files.keys()).encode()
    return files


def _confusion(
    directory: Folder, manifest: dict, checkpoint: str | None
) -> bytes | None:
    """The picture, where test images and backbone are at hand."""
    from vpt_jax.exchange import card  # see `_files`

    config = manifest["config"]
    where = config["data"]["dir"]
    try:
        model = open_export(directory, manifest, checkpoint)
        task = data.get_task(config["task"], where)
        limit = config["data"]["test_examples"]
        test = task.checked("test", where, limit=limit)
        return card.confusion(test.labels, model.outputs(test), model.classes)
    except UserError as error:
        say(f"no confusion matrix on the card: {error}")
        return None
