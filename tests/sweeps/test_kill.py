"""kill -9 at random moments of a sweep, ten times: nothing is lost or done twice."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# A life is a fork of one process that has imported everything and started nothing. It
# dies at its n-th change of a file below the workdir: between any two of those, nothing
# on disk differs.
HARNESS = """
import json, os, pathlib, random, signal, sys, traceback
import sklearn.datasets
from vpt_jax import backbones
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.config import base
from vpt_jax.reports import figures
from vpt_jax.sweeps.run import sweep
from vpt_jax.training import loop

backbones.CONFIGS["vit_test"] = ViTConfig(4, 16, 2, 2, 32, image_size=8)
loop.CHUNK_SECONDS, loop.CHECKPOINT_SECONDS = 0, -1
checkpoint, root = sys.argv[1], pathlib.Path(sys.argv[2])
config = base("digits", "linear", "vit_test")
config.backbone.checkpoint, config.data.test_examples = checkpoint, 50
config.epochs, config.batch_size = 2, 400
config.sweep.base_lrs, config.sweep.weight_decays = (0.3, 0.1, 0.03), (0.0,)
config.sweep.trials, config.sweep.seeds = 2, (1, 2)
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}

def live(workdir, deadline):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = [0]
    def watch(event, arguments):
        writes = event == "open" and arguments[1] not in (None, "r", "rb")
        if event in CHANGES or writes:
            if str(workdir) in os.fsdecode(arguments[0] or ""):
                seen[0] += 1
                if seen[0] == deadline:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    try:
        sweep(config, workdir)
        (root / "changes").write_text(str(seen[0]))
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)

assert live(root / "0", -1) == 0
total = int((root / "changes").read_text())
draw, kills, run = random.Random(0), 0, 1
while True:
    deadline = draw.randint(1, total) if kills < 10 else -1
    code = live(root / str(run), deadline)
    if code == -signal.SIGKILL:
        kills += 1
    elif code:
        sys.exit(f"a life ended with {code}")
    elif kills < 10:
        run += 1
    else:
        break
print(json.dumps({"changes": total, "kills": kills, "runs": run}))
"""


def table_of(workdir):
    """What a sweep found out, without times."""
    records = []
    for path in sorted((workdir / "units").rglob("trials.jsonl")):
        records += map(json.loads, path.read_text().splitlines())
    result = json.loads((workdir / "result.json").read_text())
    times = ("train_seconds", "compile_seconds", "images_per_second")
    for content in (*records, result):
        for key in (*times, "peak_memory_bytes"):
            content.pop(key, None)
    del result["sweep"]["grid_seconds"]
    metrics = [p.read_text() for p in sorted(workdir.rglob("metrics.jsonl"))]
    return records, result, metrics


@pytest.mark.slow
def test_kill_9_ten_times(checkpoint, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(checkpoint), str(tmp_path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == 10 and told["changes"] > 100
    expected = table_of(tmp_path / "0")
    assert len(expected[0]) == 3 and expected[1]["status"] == "ok"
    for run in range(1, told["runs"] + 1):
        assert table_of(tmp_path / str(run)) == expected
