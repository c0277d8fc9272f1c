"""Tuned models in other people's software.

pytorch        an export with the files that PyTorch needs beside it
timm_models    which network of timm is which backbone of ours
vpt_torch      the file that PyTorch runs: copied, never imported
stablehlo      an export as one program for every platform
load_stablehlo the file that runs it: copied as well
hub            an export in a repository of the Hugging Face Hub
card           the page that it has there
"""

from vpt_jax.exchange import pytorch, stablehlo
from vpt_jax.serving.load import open_export
from vpt_jax.storage.paths import Folder

WRITERS = {"torch": pytorch.write, "stablehlo": stablehlo.write}


def write(
    kind: str, directory: Folder, manifest: dict, checkpoint: str | None = None
) -> list[Folder]:
    """Write beside an export what other software needs of it.

    Args:
        kind: Of `WRITERS`.
        directory, manifest: Of the export, as `serving.load.find` gives them.
        checkpoint: Where the backbone is, as in `load`.

    Returns:
        The files.

    Raises:
        UserError: It cannot be opened, or not be written so.
    """
    model = open_export(directory, manifest, checkpoint, "float32")
    return WRITERS[kind](model, directory)
