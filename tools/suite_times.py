"""Where the suite's time goes: by room, by file, and the slowest tests.

python tools/suite_times.py                      # the plain suite
python tools/suite_times.py -n 0 tests/serving   # anything that pytest takes

A test's seconds include its fixtures; a shared one counts for the first that asks.
"""

import collections
import pathlib
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

FILES, TESTS = 40, 25  # that are shown


def main() -> int:
    """Run pytest, print the tables; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "suite.xml"
        # xunit1 says which file a test is of.
        asked = ("-o", "junit_family=xunit1", f"--junitxml={report}", *sys.argv[1:])
        code = subprocess.call([sys.executable, "-m", "pytest", "-q", *asked])
        if report.exists():
            print(tables(ElementTree.parse(report)))
    return code


def tables(report: ElementTree.ElementTree) -> str:
    """Of a report of pytest's."""
    rooms, files, counts = (collections.Counter() for _ in range(3))
    tests = {}
    for case in report.iter("testcase"):
        file, seconds = case.get("file", "?"), float(case.get("time", 0))
        room = pathlib.PurePath(file).parts[1:-1] or (".",)
        for counter, key in ((rooms, room[0]), (files, file)):
            counter[key] += seconds
            counts[key] += 1
        tests[f"{file}::{case.get('name')}"] = seconds
    shown = [f"{files.total():9.1f} s  {len(tests):5} tests"]
    for counter in (rooms, files):
        most = counter.most_common(FILES)
        shown += ["", *(f"{s:9.1f} s  {counts[name]:5}  {name}" for name, s in most)]
    slowest = collections.Counter(tests).most_common(TESTS)
    return "\n".join([*shown, "", *(f"{s:9.1f} s  {name}" for name, s in slowest)])


if __name__ == "__main__":
    sys.exit(main())
