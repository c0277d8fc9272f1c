"""Where the time of a training step goes, part by part.

python -m benchmarks.parts --backbone vit_ti16 --batch 16 --length 50

Traces steps of the program that trains and gives each moment to the instructions that
run in it, in equal shares; what an instruction belongs to is the innermost of `PARTS`
in the name that JAX gave it. `top` are the slowest kinds of instructions.
"""

import argparse
import collections
import json
import pathlib
import re
import tempfile

import jax
import jax.numpy as jnp

from benchmarks import train_step
from vpt_jax.training import programs

PARTS = ("embed", "edits", "norm", "projections", "attend", "mlp", "pool", "head")
PARTS += ("optimizer",)

INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = .*? ([\w-]+)\(")
COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
CONTAINERS = ("while", "conditional", "call")


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    train_step.add_shape(parser)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--top", type=int, default=12)
    print(json.dumps(measure(parser.parse_args()), indent=1))


def measure(args) -> dict:
    """Milliseconds per step of each part, forwards and backwards."""
    _, setup, mesh, hyper, state = train_step.prepare(args)
    labels = jnp.zeros(args.batch, jnp.int32)
    rest = setup.network.parts[2], jnp.asarray(train_step.pixels(args)), labels, hyper
    chunk = programs.make_chunk(setup, mesh).lower(state, *rest, 0, 1).compile()
    state = jax.block_until_ready(chunk(state, *rest, jnp.int32(0), jnp.int32(2)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            bounds = jnp.int32(2), jnp.int32(2 + args.steps)
            jax.block_until_ready(chunk(state, *rest, *bounds))
        [file] = pathlib.Path(folder).rglob("*.xplane.pb")
        found = jax.profiler.ProfileData.from_file(str(file))
    names = names_of(chunk.as_text())
    spans = [span for span in executions(found) if span[2] in names]
    seconds, nothing = shares(spans)
    parts = {name: collections.Counter() for name in (*PARTS, "rest")}
    kinds = collections.Counter()
    for instruction, nanoseconds in seconds.items():
        own = nanoseconds / 1e6 / args.steps
        name = names[instruction]
        within = [word for word in re.split(r"\W+", name) if word in PARTS]
        part = within[-1] if within else "rest"
        way = "backward" if "transpose(" in name else "forward"
        parts[part][way] += own
        kind = re.sub(r"[.\d]+$", "", instruction)
        kinds[f"{part} {way}: {kind}, {name.rsplit('/', 1)[-1]}"] += own
    whole = sum(sum(part.values()) for part in parts.values())
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "backbone": args.backbone,
        "batch": args.batch,
        "length": args.length,
        "step_ms": round(whole + nothing / 1e6 / args.steps, 1),
        "nothing_runs_ms": round(nothing / 1e6 / args.steps, 1),
        "parts_ms": {
            name: {way: round(ms, 1) for way, ms in part.items()}
            | {"share": round(sum(part.values()) / whole, 3)}
            for name, part in parts.items()
        },
        "top_ms": {kind: round(ms, 1) for kind, ms in kinds.most_common(args.top)},
    }


def names_of(text: str) -> dict[str, str]:
    """What JAX calls each instruction of a compiled program that does work itself.

    A fusion without a name has that of the last instruction in it that has one.
    """
    names, inside, where = {}, {}, ""
    for line in text.splitlines():
        computation = COMPUTATION.match(line)
        if computation:
            where = computation[1]
        instruction = INSTRUCTION.match(line)
        if not instruction or instruction[2] in CONTAINERS:
            continue
        named = re.search(r'op_name="([^"]*)"', line)
        called = re.search(r"calls=%?([\w.-]+)", line)
        name = named[1] if named else inside.get(called[1], "") if called else ""
        names[instruction[1]] = name
        inside[where] = name or inside.get(where, "")
    return names


def executions(found: jax.profiler.ProfileData) -> list[tuple[float, float, str]]:
    """(start, end, instruction) of all that ran, on the devices if they tell.

    On a CPU what runs in several threads has an event of its own for its end.
    """
    planes = list(found.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for group in (devices, planes):
        starts, ends = [], {}
        for event in (
            e for plane in group for line in plane.lines for e in line.events
        ):
            facts = dict(event.stats)
            if event.name.startswith("end: "):
                ends[facts["_c"]] = event.end_ns
            elif "hlo_op" in facts:
                starts.append((event, facts))
        if starts:
            break
    return [
        (e.start_ns, max(e.end_ns, ends.get(f.get("_p"), 0)), f["hlo_op"])
        for e, f in starts
    ]


def shares(spans: list[tuple[float, float, str]]) -> tuple[dict[str, float], float]:
    """Nanoseconds of each instruction, and those in which none ran."""
    total, running, nothing = collections.Counter(), collections.Counter(), 0.0
    changes = [(start, 1, name) for start, _, name in spans]
    changes += [(end, -1, name) for _, end, name in spans]
    last = min(changes)[0]
    for now, change, name in sorted(changes):
        active = [name for name, count in running.items() if count > 0]
        for other in active:
            total[other] += (now - last) / len(active)
        nothing += 0 if active else now - last
        running[name] += change
        last = now
    return total, nothing


if __name__ == "__main__":
    main()
