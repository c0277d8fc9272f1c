"""The exports below a folder, each with a name."""

import pathlib

from vpt_jax import export
from vpt_jax.errors import UserError
from vpt_jax.storage.paths import Folder, every, located


def exports_below(folder: Folder | str) -> dict[str, Folder]:
    """Folders that `vpt_jax.load` takes, by name.

    A name says where a folder stands: runs/pets/lora below runs is 'pets.lora', and
    what that run has tuned beside is 'pets.lora.beside.linear'.

    Raises:
        UserError: There is none.
    """
    root, found = located(folder), {}
    for file in every(root):
        if file.name != export.MANIFEST or not _inside(file, root):
            continue
        parts = list(file.parent.relative_to(root).parts)
        for part in ("seed_", "export", "final"):  # a seed, its run, its sweep
            if parts and parts[-1].startswith(part):
                parts.pop()
        name = ".".join(parts) or root.absolute().name
        found[name] = root.joinpath(*parts)
    if not found:
        raise UserError(
            f"{root} holds no {export.MANIFEST}, at no depth; give a folder with "
            "finished runs or exports"
        )
    return dict(sorted(found.items()))


def _inside(file: Folder, root: Folder) -> bool:
    """Whether no link leads elsewhere."""
    if not isinstance(file, pathlib.Path):
        return True
    return file.resolve().is_relative_to(root.resolve())
