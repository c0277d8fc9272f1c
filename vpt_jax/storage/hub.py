"""What lies in a repository of the Hugging Face Hub, as files on this machine.

huggingface_hub does it, with its cache, its tokens and its mirrors (`HF_ENDPOINT`).
"""

import importlib.util
import pathlib
from types import ModuleType

from vpt_jax.errors import UserError

SCHEME = "hf://"


def library() -> ModuleType:
    """The package huggingface_hub, which is optional.

    Raises:
        UserError: It is not installed.
    """
    if not importlib.util.find_spec("huggingface_hub"):
        raise UserError("the Hub needs huggingface_hub: pip install 'vpt_jax[hub]'")
    import huggingface_hub  # pyright: ignore[reportMissingImports]  (optional)

    return huggingface_hub


def is_address(name: object) -> bool:
    """Whether it is of the form hf://..."""
    return isinstance(name, str) and name.startswith(SCHEME)


def snapshot(address: str, names: tuple[str, ...]) -> tuple[pathlib.Path, str]:
    """(a folder with the named files, the commit that they are of).

    Args:
        address: hf://owner/name, or hf://owner/name@revision.
        names: Of the files; one that the repository lacks is left out.

    Raises:
        UserError: Not such an address, nothing there, or no permission.
    """
    repository, _, revision = address.removeprefix(SCHEME).partition("@")
    if len([part for part in repository.split("/") if part]) != 2:
        raise UserError(f"{address} is not of the form hf://owner/name[@revision]")
    hub = library()
    try:
        folder = hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(names)
        )
    except (OSError, ValueError) as error:  # its own errors are OSErrors
        raise UserError(f"{address} cannot be read: {reason(error)}") from error
    path = pathlib.Path(folder)
    return path, path.name


def reason(error: Exception) -> str:
    """One line of an error of the Hub."""
    return " ".join(str(error).split()) or type(error).__name__
