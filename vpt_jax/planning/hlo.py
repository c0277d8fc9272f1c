"""What the text of a program that XLA has compiled says about its cost.

    %fusion.7 = bf16[64,247,768]{...} fusion(%a, %b), kind=kOutput, calls=%fused.7,
        metadata={op_name="jit(chunk)/while/body/vmap(jvp(mlp))/dot_general"},
        backend_config={"window_config":{"estimated_cycles":"310211",...},...}

Only the compiler for TPU estimates cycles. What a custom call (a Pallas kernel) takes
it does not know, but it repeats what the kernel says of itself (`pl.CostEstimate`).
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from vpt_jax.planning import loops

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)

PRODUCTS = ("convolution", "dot")

CALLING = ("while", "conditional", "call", "async-start")
"""Operations that run other computations; a fusion counts as a whole."""

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r" +(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(")
_NAMES = re.compile(r'op_name="([^"]*)"')
_NUMBERS = {
    "cycles": re.compile(r'"estimated_cycles":"(\d+)"'),
    "flops": re.compile(r'"flops":"?(\d+)'),
    "bytes": re.compile(r'"bytes_accessed":"?(\d+)'),
}
_CALLEES = re.compile(
    r"(?:body|to_apply|calls|branch_computations)=(\{[^}]*\}|[^,\s]+)"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)+)\}")
_COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESHED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? *\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction of a compiled program.

    Attributes:
        name, kind: E.g. 'fusion.7' and 'fusion'.
        shape: Of the result, as written.
        scope: Names it was traced under, outermost first; of a fusion that holds a
            matrix product, those of the product.
        cycles: The compiler's estimate; 0 where it gives none.
        flops, bytes: What a custom call says of itself, else 0. All three as often as
            the loops around it run, where the text says how often.
    """

    name: str
    kind: str
    shape: str
    scope: tuple[str, ...]
    cycles: int
    flops: int
    bytes: int

    def part(self, parts: Sequence[str]) -> str:
        """The innermost of `parts` that it was traced under, or 'other'."""
        return next((name for name in reversed(self.scope) if name in parts), "other")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Communication between devices.

    Attributes:
        kind: One of `COLLECTIVES`.
        bytes: Size of the result on one device.
        groups: Devices, by their place in the mesh, that talk to each other (of a
            permutation, pairs); empty: all of them.
    """

    kind: str
    bytes: int
    groups: tuple[tuple[int, ...], ...]


def operations(text: str) -> list[Operation]:
    """What a program runs: of a condition each branch, and the body of a loop once of
    which it is not known how often it runs."""
    computations, entry = _split(text)
    return list(_walk(computations, entry, 1))


def loops_of(text: str) -> list[int | None]:
    """How often each loop of a program runs; None where its text does not say it."""
    computations, _ = _split(text)
    return [
        loops.trips(computations, name, line)
        for name, lines in computations.items()
        for line in lines
        if (match := _OPERATION.match(line)) and match[3] == "while"
    ]


def collectives(text: str) -> list[Collective]:
    """All communication that a program contains."""
    found = []
    for line in text.splitlines():
        match = _OPERATION.match(line)
        kind = match[3].removesuffix("-start") if match else ""
        if match and kind in COLLECTIVES:
            sizes = _sizes(match[2])
            # A start lists its operand too, save that of an all-reduce.
            whole = kind == match[3] or kind == "all-reduce"
            size = sum(sizes) if whole else max(sizes)
            found.append(Collective(kind, size, _groups(line)))
    return found


def _split(text: str) -> tuple[loops.Computations, str]:
    """The lines of each computation, and the name of the one that starts."""
    computations: loops.Computations = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif " = " in line:
            lines.append(line)
    return computations, entry


def _walk(
    computations: loops.Computations, name: str, often: int
) -> Iterator[Operation]:
    for line in computations[name]:
        match = _OPERATION.match(line)
        if match is None:
            continue
        if match[3] in CALLING:
            known = match[3] == "while" and loops.trips(computations, name, line)
            for callee in _callees(line):
                yield from _walk(computations, callee, often * (known or 1))
            continue
        named = line
        if match[3] == "fusion":
            named = _product(computations, line) or line
        numbers = {k: often * _number(form, line) for k, form in _NUMBERS.items()}
        yield Operation(match[1], match[3], match[2], _scope(named), **numbers)


def _callees(line: str) -> list[str]:
    """The computations that an operation names."""
    return [
        name.strip(" %")
        for found in _CALLEES.findall(line)
        for name in found.strip("{}").split(",")
    ]


def _product(computations: loops.Computations, fusion: str) -> str | None:
    """The first matrix product in a fusion, or in one within it."""
    for callee in _callees(fusion):
        for line in computations[callee]:
            match = _OPERATION.match(line)
            kind = match[3] if match else ""
            if kind in PRODUCTS:
                return line
            inner = _product(computations, line) if kind == "fusion" else None
            if inner:
                return inner
    return None


def _scope(line: str) -> tuple[str, ...]:
    """'jit(f)/vmap(jvp(mlp))/add' to ('f', 'mlp', 'add')."""
    match = _NAMES.search(line)
    parts = match[1].split("/") if match else []
    words = (re.findall(r"[\w.\-]+", part) for part in parts)
    return tuple(found[-1] for found in words if found)


def _number(form: re.Pattern, line: str) -> int:
    match = form.search(line)
    return int(match[1]) if match else 0


def _sizes(shape: str) -> list[int]:
    """Bytes of each array in a written shape, e.g. '(f32[8,4]{1,0}, u32[])'."""

    def size(bits: str, dims: str) -> int:
        return math.prod(map(int, filter(None, dims.split(",")))) * int(bits or 8) // 8

    return [size(bits, dims) for _, bits, dims in _ARRAY.findall(shape)]


def _groups(line: str) -> tuple[tuple[int, ...], ...]:
    """Three ways of writing '{{0,1},{2,3}}': also '[2,2]<=[4]' and "mesh['a'=2,'b'=2]
    {'b'}"."""
    if listed := _LISTED.search(line):
        groups = re.findall(r"\{([^}]*)\}", listed[1])
        return tuple(_integers(group) for group in groups)
    if counted := _COUNTED.search(line):
        return _rows(_numbered(*counted.group(2, 3)).reshape(_integers(counted[1])))
    if meshed := _MESHED.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
        names, over = list(sizes), re.findall(r"'(\w+)'", meshed[4])
        order = meshed[2] or ",".join(sizes.values())
        ids = _numbered(order, meshed[3]).reshape([int(n) for n in sizes.values()])
        apart = [names.index(name) for name in names if name not in over]
        together = [names.index(name) for name in over]
        count = math.prod(ids.shape[n] for n in together)
        return _rows(ids.transpose(apart + together).reshape(-1, count))
    return ()


def _numbered(shape: str, turned: str | None) -> np.ndarray:
    """The numbers from 0 in a shape, its axes then in the order `turned`."""
    sizes = _integers(shape)
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids.transpose(_integers(turned)) if turned else ids


def _rows(groups: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(group) for group in groups.tolist())


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
