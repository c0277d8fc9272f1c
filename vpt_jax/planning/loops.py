"""How often the loops of a compiled program run, where its text says so.

    %start = s32[] constant(0)
    %tuple.1 = (s32[], ...) tuple(%start, ...)
    %while.1 = (s32[], ...) while(%tuple.1), condition=%before, body=%body

A scan becomes a loop with a counter: `before` compares it with a constant, the last
line of `body` adds one to it. Of the loop over training steps, whose bounds are given
when it runs, nothing is known.
"""

import re

Computations = dict[str, list[str]]
"""The lines of each."""

LINE = re.compile(r" +(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)")
_CALLED = re.compile(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)")


def trips(computations: Computations, caller: str, line: str) -> int | None:
    """How often a loop runs; None where its text does not say it.

    Args:
        computations: Of the program.
        caller: The one that the loop stands in.
        line: The loop, a `while`.
    """
    called, loop = _CALLED.search(line), LINE.match(line)
    if called is None or loop is None:
        return None
    outside = _Names(computations[caller])
    before, body = (_Names(computations[name]) for name in called.groups())
    counter, limit = before.operands(before.root, "compare") or ("", "")
    index = before.index(counter)
    if index is None or "direction=LT" not in before.rest(before.root):
        return None
    start = outside.constant(_at(outside.operands(_first(loop[4]), "tuple"), index))
    stop = before.constant(limit)
    added = body.operands(_at(body.operands(body.root, "tuple"), index), "add")
    steps = [body.constant(name) for name in added if body.index(name) != index]
    if len(added) != 2 or steps != [1] or start is None or stop is None:
        return None
    return max(stop - start, 0)


class _Names:
    """What the lines of a computation call by name."""

    def __init__(self, lines: list[str]):
        found = [match for line in lines if (match := LINE.match(line))]
        self._found = {match[1]: match for match in found}
        roots = [match[1] for match in found if "ROOT" in match[0].split("=")[0]]
        self.root = roots[0] if roots else ""

    def operands(self, name: str, kind: str) -> list[str]:
        """Of an operation of this kind; nothing of another."""
        match = self._found.get(name)
        return _split(match[4]) if match and match[3] == kind else []

    def rest(self, name: str) -> str:
        """What stands behind the operands."""
        return self._found[name][5]

    def index(self, name: str) -> int | None:
        """Which entry of the loop's tuple it is."""
        match = self._found.get(name)
        place = match and re.search(r"index=(\d+)", match[5])
        taken = match and match[3] == "get-tuple-element"
        return int(place[1]) if place and taken else None

    def constant(self, name: str) -> int | None:
        """The whole number that it is, or is a copy of."""
        match = self._found.get(name)
        if match and match[3] == "copy":
            return self.constant(_first(match[4]))
        number = match and match[3] == "constant" and re.fullmatch(r"-?\d+", match[4])
        return int(number[0]) if number else None


def _split(operands: str) -> list[str]:
    """'%a, /*index=1*/%b' to 'a' and 'b'."""
    names = re.sub(r"/\*.*?\*/", "", operands).split(",")
    return [name.strip(" %") for name in names]


def _first(operands: str) -> str:
    return _split(operands)[0]


def _at(names: list[str], index: int) -> str:
    return names[index] if index < len(names) else ""
