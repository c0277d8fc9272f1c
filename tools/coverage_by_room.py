"""How much of each room of vpt_jax/ the tests run, and the files they run least of.

python tools/coverage_by_room.py                      # the plain suite
python tools/coverage_by_room.py -n 0 tests/serving   # anything that pytest takes

Processes that tests start are counted too, where they end by themselves.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

FILES = 15  # that are shown
SETTINGS = """
[run]
source = vpt_jax
patch = subprocess
sigterm = true
parallel = true
"""


def main() -> int:
    """Run pytest below coverage.py, print both tables; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        settings = pathlib.Path(folder, "settings")
        report = pathlib.Path(folder, "report.json")
        settings.write_text(f"{SETTINGS}data_file = {folder}/data\n")

        def coverage(*words: str) -> int:
            own = (words[0], f"--rcfile={settings}", *words[1:])
            return subprocess.call([sys.executable, "-m", "coverage", *own])

        code = coverage("run", "-m", "pytest", "-q", *sys.argv[1:])
        coverage("combine", "--quiet")
        coverage("json", "--quiet", "-o", str(report))
        print(tables(json.loads(report.read_text())["files"]))
    return code


def tables(files: dict[str, dict]) -> str:
    """Of what coverage.py found, by file."""
    rooms: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    least = []
    for name, found in files.items():
        run, all_ = (found["summary"][k] for k in ("covered_lines", "num_statements"))
        parts = pathlib.PurePath(name).parts
        room = parts[1] if len(parts) > 2 else "."
        for key in (room, "in all"):
            rooms[key][0] += run
            rooms[key][1] += all_
        least.append((run - all_, run, all_, name))
    shown = [line(*counts, room) for room, counts in sorted(rooms.items())]
    return "\n".join([*shown, "", *(line(*one[1:]) for one in sorted(least)[:FILES])])


def line(run: int, all_: int, name: str) -> str:
    """'  97.1 %   1234 of   1270  serving'."""
    return f"{100 * run / max(all_, 1):6.1f} %  {run:6} of {all_:6}  {name}"


if __name__ == "__main__":
    sys.exit(main())
