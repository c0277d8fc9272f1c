"""Files that are whole or not there."""

import json
import os
import pathlib
from collections.abc import Iterator

from vpt_jax.errors import UserError


def write_text(path: pathlib.Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_json(path: pathlib.Path, content: dict) -> None:
    """Write whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict | None:
    """The content; None when there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_lines(path: pathlib.Path) -> list[dict]:
    """The whole lines of a metrics.jsonl; one that a kill cut short is left out."""
    return list(_parse(path.read_text().splitlines()))


def _parse(lines: list[str]) -> Iterator[dict]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
