"""What a checkpoint format is, and how arrays get from a file into a backbone.

A format names, for each parameter of a backbone, the key in the file:

    "norm": "encoder_norm"                          a layer, its arrays follow by rule
    "blocks.{}.gamma1": "blocks.{}.ls1.gamma"       a single array
    "blocks.{}.attn.query": "blocks.{}.attn.qkv[0/3]"   the first third of its rows
    "norm": "fc_norm?"                              scale 1, bias 0 if it is not there

`{}` stands for the numbers of stages and blocks, in order; `{0.next}` is one more than
the first.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vpt_jax import backbones
from vpt_jax.checkpoints.files import File
from vpt_jax.errors import UserError
from vpt_jax.types import Path, path_name

_PARTS = re.compile(r"(?P<key>.*?)(\[(?P<part>\d)/(?P<parts>\d)\])?(?P<fresh>\?)?")
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_FLOAT32 = ("mean", "var")  # running statistics, whatever the weights are stored in
MAX_GRID = 128  # patches a side of position embeddings: 1,024 px in patches of 8


@dataclasses.dataclass(frozen=True)
class Format:
    """One publisher's names for one kind of backbone.

    Attributes:
        name: Whose files these are, for messages.
        families: The types of configuration whose backbones it fills.
        names: Parameter or layer of the backbone to key in the file, see above.
        marks: Keys by which a file is recognised; all must be there.
        size: (a function of the shape of a parameter in the file, by our name) to the
            attributes of a configuration that tell sizes apart.
        layout: 'torch': (out, in) and (out, in, h, w), keys 'a.weight'; 'flax': (in,
            out) and (h, w, in, out) with heads apart, keys 'a/kernel'; 'own'.
        prefixes: What may stand before every key; what stands elsewhere in the file
            is part of another network.
        ignored: Regular expression of keys that belong to the old task.
        zero: Regular expression of keys that a backbone has no place for and that must
            hold zeros: biases that some writers store although nothing was learned.
    """

    name: str
    families: tuple[type, ...]
    names: Mapping[str, str]
    marks: tuple[str, ...]
    size: Callable[[Callable], dict]
    layout: str = "torch"
    prefixes: tuple[str, ...] = ("",)
    ignored: str = r"$^"
    zero: str = r"$^"

    def source(self, path: Path) -> "Source":
        """Where the parameter at `path` comes from."""
        entry, leaf = self._entry(path), ""
        if entry is None:
            entry, leaf = self._entry(path[:-1]), str(path[-1])
            assert entry is not None, f"{self.name} does not name {path_name(path)}"
            torch = self.layout == "torch"
            leaf = f".{_TORCH_LEAVES[leaf]}" if torch else f"/{leaf}"
        found = _PARTS.fullmatch(entry)
        assert found is not None, entry
        return Source(
            found["key"] + leaf,
            int(found["part"] or 0),
            int(found["parts"] or 1),
            bool(found["fresh"]),
        )

    def prefix(self, keys: frozenset[str]) -> str | None:
        """What stands before the keys of a file; None if it is of another format."""
        for prefix in self.prefixes:
            if all(prefix + mark in keys for mark in self.marks):
                return prefix
        return None

    def _entry(self, path: Path) -> str | None:
        """The entry for a path, with its numbers filled in."""
        numbers = [_Number(entry) for entry in path if isinstance(entry, int)]
        name = ".".join("{}" if isinstance(entry, int) else entry for entry in path)
        return self.names[name].format(*numbers) if name in self.names else None


class _Number(int):
    @property
    def next(self) -> int:
        return self + 1


@dataclasses.dataclass(frozen=True)
class Source:
    """Part `part` of `parts` of the array `key`; `fresh` where it may be absent."""

    key: str
    part: int
    parts: int
    fresh: bool


def recognise(file: File, config, formats: tuple[Format, ...]) -> Format:
    """The format of a file, which must be able to hold `config`.

    Raises:
        UserError: None of `formats`, another family, or another size.
    """
    matching = [f for f in formats if f.prefix(file.keys) is not None]
    if not matching:
        some = _some(sorted(file.keys), 4)
        known = ", ".join(f.name for f in formats)
        raise UserError(
            f"checkpoint {file.path} is of no known format: it holds "
            f"{len(file.keys)} arrays, {some}; known: {known}"
        )
    # The first is the most specific; its siblings differ only in what they fill.
    alike = [f for f in matching if f.marks == matching[0].marks]
    for candidate in alike:
        if type(config) in candidate.families:
            _check_size(file, config, candidate)
            return candidate
    raise UserError(
        f"checkpoint {file.path} does not fit {_named(config)}: it holds "
        f"{_found(file, alike)}; give another config.backbone.name or checkpoint"
    )


def _check_size(file: File, config, chosen: Format) -> None:
    found = _measured(file, chosen)
    wanted = {name: getattr(config, name) for name in found}
    if found != wanted:
        raise UserError(
            f"checkpoint {file.path} does not fit {_named(config)} "
            f"({_listed(wanted)}): it holds {_found(file, [chosen])}; give another "
            "config.backbone.name or checkpoint"
        )


def _measured(file: File, chosen: Format) -> dict:
    prefix = chosen.prefix(file.keys)
    assert prefix is not None, "a file is recognised before it is read"

    def shape(*path) -> tuple[int, ...] | None:
        source = chosen.source(path)
        if prefix + source.key not in file.keys:
            return None
        found = file.header(prefix + source.key).shape
        if chosen.layout == "torch" and path[-1] == "kernel":
            return _turned(found)
        return found

    return chosen.size(shape)


def _found(file: File, formats: list[Format]) -> str:
    """'timm's ViT, width 768, depth 12, patch 16 (vit_b16, deit_b16)'."""
    size = _measured(file, formats[0])
    families = [family for f in formats for family in f.families]
    names = [
        name
        for name, config in backbones.CONFIGS.items()
        if type(config) in families
        and size == {attribute: getattr(config, attribute) for attribute in size}
    ]
    fitting = f"which is {' or '.join(names)}" if names else "a size without a name"
    return f"{formats[0].name} weights of {_listed(size)}, {fitting}"


def _named(config) -> str:
    names = [name for name, known in backbones.CONFIGS.items() if known == config]
    return names[0] if names else type(config).__name__.removesuffix("Config")


def _listed(size: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in size.items())


def read(
    file: File,
    chosen: Format,
    config,
    shapes: Mapping[Path, tuple[int, ...]],
    dtype,
    exact: Collection[Path] = (),
) -> dict[Path, np.ndarray]:
    """Every parameter of a backbone, one array at a time, once all headers fit.

    Args:
        file, chosen: The file and its format.
        config: The architecture.
        shapes: Shape of every parameter of the backbone.
        dtype: What to store the parameters in.
        exact: Paths of those that are stored in float32 all the same.

    Returns:
        An array for each path in `shapes`.

    Raises:
        UserError: All that is missing, unexpected or misshaped.
    """
    prefix = chosen.prefix(file.keys)
    assert prefix is not None, "a file is recognised before it is read"
    sources = {path: chosen.source(path) for path in shapes}
    keys = {source.key for source in sources.values()}
    needed = {source.key for source in sources.values() if not source.fresh}
    missing = sorted(key for key in needed if prefix + key not in file.keys)
    unexpected = sorted(
        key
        for key in (k.removeprefix(prefix) for k in file.keys if k.startswith(prefix))
        if key not in keys and not re.match(chosen.ignored, key)
    )
    empty = [key for key in unexpected if re.fullmatch(chosen.zero, key)]
    unexpected = [key for key in unexpected if key not in empty]
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    learned = [key for key in empty if _holds_more_than_zeros(file, prefix + key)]
    if learned:
        problems.append(f"not zero {_some(learned)}, for which there is no place")
    for path, source in _present(file, prefix, sources):
        header, wanted = file.header(prefix + source.key), shapes[path]
        part = _part(header.shape, source)
        if part is None or not _fits(path, part, wanted, config, chosen):
            found = part or header.shape
            problems.append(f"{source.key} has shape {found}, wanted {wanted}")
        elif not jnp.issubdtype(header.dtype, jnp.floating):  # bfloat16 included
            problems.append(f"{source.key} holds {header.dtype}, wanted floating point")
    if problems:
        raise UserError(f"checkpoint {file.path} does not fit: " + "; ".join(problems))
    arrays = {}
    for path, array in _arrays(file, prefix, sources):
        array = _convert(path, array, shapes[path], config, chosen)
        wide = path[-1] in _FLOAT32 or path in exact
        kind = np.float32 if wide else dtype
        arrays[path] = array.astype(kind, order="C", copy=False)
    for path, source in sources.items():
        if path not in arrays:
            assert source.fresh
            value = 1.0 if path[-1] == "scale" else 0.0
            arrays[path] = np.full(shapes[path], value, dtype)
    return arrays


def _holds_more_than_zeros(file: File, key: str) -> bool:
    """Of a vector; anything else is not read."""
    return len(file.header(key).shape) != 1 or bool(np.any(file.read(key)))


def _present(
    file: File, prefix: str, sources: Mapping[Path, Source]
) -> Iterator[tuple[Path, Source]]:
    """The parameters that the file has, those that share a key side by side."""
    for path, source in sorted(sources.items(), key=lambda item: item[1].key):
        if prefix + source.key in file.keys:
            yield path, source


def _arrays(
    file: File, prefix: str, sources: Mapping[Path, Source]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Each parameter's part of the file; a key that several share is read once."""
    last_key, array = None, np.empty(0)
    for path, source in _present(file, prefix, sources):
        if source.key != last_key:
            last_key, array = source.key, file.read(prefix + source.key)
        rows = array.shape[0] // source.parts if source.parts > 1 else 0
        start = source.part * rows
        yield path, array[start : start + rows] if source.parts > 1 else array


def _part(shape: tuple[int, ...], source: Source) -> tuple[int, ...] | None:
    """The shape of a part of an array; None where it cannot be parted."""
    if source.parts == 1:
        return shape
    if not shape or shape[0] % source.parts:
        return None
    return (shape[0] // source.parts, *shape[1:])


def _fits(
    path: Path, shape: tuple[int, ...], wanted: tuple[int, ...], config, chosen: Format
) -> bool:
    """Whether `_convert` can bring an array of this shape into the one wanted."""
    if path == ("pos_embed",):
        return _stretches(shape, wanted, config)
    if chosen.layout == "torch":
        if path[-1] == "kernel" and len(shape) in (2, 4):
            return _turned(shape) == wanted
        # CLIP's class embedding has one axis
        flat = len(wanted) == 3 and math.prod(shape) == math.prod(wanted) == wanted[-1]
        return shape == wanted or flat
    if chosen.layout == "flax":
        return shape in (wanted, split_heads(path, wanted, config.heads))
    return shape == wanted


def _convert(
    path: Path, array: np.ndarray, wanted: tuple[int, ...], config, chosen: Format
) -> np.ndarray:
    """An array that `_fits` in our layout and shape."""
    if path == ("pos_embed",):
        return stretch(array, wanted, config)
    if chosen.layout == "torch" and path[-1] == "kernel" and array.ndim in (2, 4):
        array = array.transpose(*range(2, array.ndim), 1, 0)
    return array.reshape(wanted)


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(out, in, h, w) of PyTorch as (h, w, in, out)."""
    return (*shape[2:], *shape[1::-1])


def _stretches(shape: tuple[int, ...], wanted: tuple[int, ...], config) -> bool:
    """Whether position embeddings are a square grid, with or without CLS."""
    if len(shape) not in (2, 3) or shape[:-2] not in ((), (1,)):
        return False
    num, width = shape[-2:]
    grids = {num, num - (wanted[1] - config.grid**2)}
    sides = [math.isqrt(n) for n in grids if n > 0 and math.isqrt(n) ** 2 == n]
    return width == wanted[-1] and any(side <= MAX_GRID for side in sides)


def stretch(
    array: np.ndarray, wanted: tuple[int, ...], config
) -> Float[np.ndarray, "1 N D"]:
    """Position embeddings for another grid, as the family does it.

    Where a backbone has an embedding for CLS and the file has none, it is zero: the
    file has added it to CLS itself.
    """
    array = array[None] if array.ndim == 2 else array
    num_cls = wanted[1] - config.grid**2
    if math.isqrt(max(array.shape[1] - num_cls, 0)) ** 2 != array.shape[1] - num_cls:
        array = np.pad(array, ((0, 0), (num_cls, 0), (0, 0)))
    side = math.isqrt(array.shape[1] - num_cls)
    if side == config.grid:
        return array
    grid = array[0, num_cls:].astype(np.float32).reshape(side, side, -1)
    grid = config.stretch(grid).reshape(1, config.grid**2, -1)
    return np.concatenate([array[:, :num_cls], grid], axis=1)


def split_heads(path: Path, shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    """Flax keeps heads apart: (D, H, K), (H, K), and (H, K, D) for `out`."""
    if path[-2:-1] not in (("query",), ("key",), ("value",), ("out",)):
        return tuple(shape)
    split = (heads, shape[-1] // heads)
    if path[-2] == "out":
        return (*split, shape[-1]) if path[-1] == "kernel" else tuple(shape)
    return (*shape[:-1], *split)


def vit_size(shape) -> dict:
    """Attributes of a ViT by the arrays of a file."""
    depth = 0
    while shape("blocks", depth, "norm1", "bias"):
        depth += 1
    kernel = shape("patch_embed", "kernel")
    return {"width": kernel[-1], "depth": depth, "patch": kernel[0]}


def staged_depths(shape, *rest: str | int) -> tuple[int, ...]:
    """Blocks per stage, where `rest` leads to an array that every block has."""
    depths = []
    while shape("stages", len(depths), "blocks", 0, *rest):
        index = 0
        while shape("stages", len(depths), "blocks", index, *rest):
            index += 1
        depths.append(index)
    return tuple(depths)


def _some(names: list[str], limit: int = 12) -> str:
    """A list of names, shortened."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
