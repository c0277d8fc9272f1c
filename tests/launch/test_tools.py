"""The recipes, read by the tools that they are for: requirements-launch.txt."""

import json
import pathlib
import shlex
import shutil
import subprocess

import pytest
import yaml

pytestmark = pytest.mark.launch
ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def passes(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_shell():
    passes("shellcheck", "-S", "warning", *LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch")


def test_dockerfile():
    passes("hadolint", ROOT / "Dockerfile")


def test_the_job_of_the_jobset(tmp_path):
    """Kubernetes's own schema; there is none of JobSet in a package."""
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "vpt"}}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job | replicated["template"]))
    passes("kubernetes-validate", "--strict", path)


@pytest.mark.parametrize("name", ["skypilot_gpu.yaml", "skypilot_tpu.yaml"])
def test_skypilot(name):
    read = "import sky, sys; task = sky.Task.from_yaml(sys.argv[1]); print(task.run)"
    python = pathlib.Path(shutil.which("sky") or "no sky").with_name("python")
    text = passes(python, "-W", "ignore", "-c", read, LAUNCH / name)
    assert "launch.py" in text


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not here")
def test_gcloud_knows_every_flag(start):
    run = start("tpu_vm.sh")
    assert run.end() == 0
    for words in run.told("gcloud"):
        lint = ["gcloud", "meta", "lint-gcloud-commands"]
        text = passes(*lint, f"--command-string={shlex.join(['gcloud', *words])}")
        [found] = json.loads(text)
        assert found["success"], found["error_message"]


def test_xpk_writes_a_jobset(start, tmp_path):
    run = start("xpk.sh")
    assert run.end() == 0
    [words] = run.told("xpk")
    dry = ["--dry-run", "--skip-validation", f"--output-manifest-file={tmp_path / 'm'}"]
    passes("xpk", *words, *dry)
    spec = yaml.safe_load((tmp_path / "m").read_text())["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    again = rule["onExitCodes"]["values"]  # of FailJob, NotIn
    assert spec["failurePolicy"]["maxRestarts"] == 100
    assert 143 in again and 2 not in again and job["parallelism"] == 8
