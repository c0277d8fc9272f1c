"""The configurations that come with the package, found by name.

They are the files of `configs/`: in a checkout beside the package, in a wheel within.
"""

import pathlib

from vpt_jax.errors import UserError

PACKAGE = pathlib.Path(__file__).parent


def folder() -> pathlib.Path:
    """Where they lie."""
    within = PACKAGE / "configs"
    return within if within.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """'ablations', ..., 'vtab'."""
    return sorted(file.stem for file in folder().glob("*.py"))


def located(config: str) -> str:
    """What --config names, with the path in place of a name.

    Args:
        config: 'vtab:cifar100', or what has a path: 'configs/vtab.py:cifar100'.

    Raises:
        UserError: No configuration has that name.
    """
    name, colon, argument = config.partition(":")
    if name != pathlib.PurePath(name).stem:
        return config
    if name not in names():
        raise UserError(
            f"--config {name}: there is no such configuration; there are: "
            f"{', '.join(names())}; or give the path of a .py file"
        )
    return f"{folder() / name}.py{colon}{argument}"
