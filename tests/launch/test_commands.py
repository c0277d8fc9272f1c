"""The recipes of launch/: what each runs, when it begins again, who hears SIGTERM."""

import pathlib
import re
import signal

import pytest
import yaml

from vpt_jax import cli, parallel
from vpt_jax.resolution import resolve

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "launch.md").read_text()
JOBSET = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
[JOB] = [job["template"]["spec"] for job in JOBSET["spec"]["replicatedJobs"]]
POD = JOB["template"]["spec"]
[CONTAINER] = POD["containers"]
JOINED = ("--processes", "--coordinator", "--process")

# (processes, coordinator, number) of each that is started.
STARTED = {
    "jobset.yaml": [(8, None, None)],
    "skypilot_gpu.yaml": [(2, "10.0.0.1:8476", 1)],
    "skypilot_tpu.yaml": [(2, None, None)],
    "slurm.sbatch": [(32, None, None)],
    "ssh.sh": [(2, "10.0.0.1:8476", 0), (2, "10.0.0.1:8476", 1)],
    "tpu_vm.sh": [(8, None, None)],
    "xpk.sh": [(8, None, None)],
}


def test_every_recipe_is_known_and_on_the_page():
    assert sorted(STARTED) == sorted(p.name for p in (ROOT / "launch").iterdir())
    assert all(f"(../launch/{name})" in PAGE for name in STARTED)


@pytest.mark.parametrize("name", STARTED)
def test_a_recipe_trains(name, start, hosts, command, monkeypatch):
    """Its flags are known, its config resolves, and it is the command of the page."""
    if name == "jobset.yaml":
        commands = [CONTAINER["args"]]
    else:
        run = start(name, *[hosts] * (name == "ssh.sh"))
        assert run.end() == 0
        commands = [["python", *words] for words in run.told("python")]
    found = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(parallel, "join", lambda *together: found.append(together))
    monkeypatch.setitem(cli.MODES, "train", lambda _: resolved(cli._CONFIG.value))
    for python, program, *arguments in commands:
        assert (python, program) == ("python", "launch.py")
        assert command(*arguments) == (0, "", "")
        assert [w for w in normal(arguments) if not w.startswith(JOINED)] == the_page()
    assert sorted(found) == STARTED[name]


def resolved(config):
    assert resolve(config).batch_size == 64
    [workdir] = cli._WORKDIR.value
    assert workdir.startswith("gs://")
    return 0


def normal(words):
    """Flags as --name=value."""
    return re.sub(r"(--\w+) (?!-)", r"\1=", " ".join(words)).split()


def the_page():
    between = PAGE.split("<!-- command -->")[1].split("<!-- end -->")[0]
    words = between.replace("\\\n", " ").replace("```bash", "").replace("```", "")
    _, _, *arguments, processes = normal(words.split())
    assert processes == "--processes=N"
    return arguments


# ---- plain ssh


def test_ssh_begins_again_but_not_after_a_mistake(start, hosts):
    run = start("ssh.sh", hosts, CODES="143 143 134 0 2 2")
    assert run.end() == 2
    assert len(run.told("python")) == 6
    assert {words[-2] for words in run.told("ssh")} == {"me@10.0.0.1", "10.0.0.2"}


def test_ssh_hands_sigterm_to_every_host(start, hosts):
    run = start("ssh.sh", hosts, CODES="until-told until-told")
    run.wait_for("ready", 2)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 143
    assert len(run.told("saved")) == 2


# ---- TPU VMs


def queued(run):
    return [w[3] for w in run.told("gcloud") if w[2] == "queued-resources"]


def test_a_slice_is_made_again_until_training_ends(start):
    run = start("tpu_vm.sh", CODES="143 134 0")
    assert run.end() == 0
    assert queued(run) == ["create", "describe", "delete"] * 3


def test_a_slice_is_not_made_again_for_a_mistake(start):
    run = start("tpu_vm.sh", CODES="2")
    assert run.end() == 2
    assert queued(run) == ["create", "describe", "delete"]


def test_a_slice_is_told_and_deleted(start):
    run = start("tpu_vm.sh", CODES="until-told")
    run.wait_for("ready", 1)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 143
    *_, stop, saved, delete = run.lines()
    assert (stop, saved) == (["docker", "stop", "vpt"], ["saved"])
    assert "delete" in delete
    assert queued(run) == ["create", "describe", "delete"]


# ---- Slurm


def test_slurm_is_asked_for_what_the_script_relies_on():
    lines = (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if "#SBATCH" in line]
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", word) for word in asked)
    options = dict(word.partition("=")[::2] for word in asked)
    assert options["--ntasks-per-node"] == options["--gpus-per-node"]
    assert re.fullmatch(r"B:USR1@\d{2,}", options["--signal"])
    assert "--requeue" in options


def test_slurm_saves_before_the_time_is_over_and_queues_again(start):
    run = start("slurm.sbatch", CODES="until-told")
    run.wait_for("ready", 1)
    run.process.send_signal(signal.SIGUSR1)
    run.end()
    told = [["scancel", "--signal=TERM", "7"], ["saved"], ["scontrol", "requeue", "7"]]
    assert run.lines()[-3:] == told


@pytest.mark.parametrize("code", [0, 2, 143])
def test_slurm_does_not_queue_again_what_ended(start, code):
    run = start("slurm.sbatch", CODES=str(code))
    assert run.end() == code
    assert not run.told("scontrol")


# ---- GKE and SkyPilot


def test_a_jobset_has_a_pod_on_each_host_and_fails_on_a_mistake():
    x, y = POD["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = CONTAINER["resources"]["limits"]["google.com/tpu"]
    assert JOB["parallelism"] == JOB["completions"] == int(x) * int(y) / chips
    [rule] = JOB["podFailurePolicy"]["rules"]
    codes = {"containerName": CONTAINER["name"], "operator": "In", "values": [2]}
    assert (rule["action"], rule["onExitCodes"]) == ("FailJob", codes)
    policy = JOBSET["spec"]["failurePolicy"]
    [rule] = policy["rules"]
    assert rule["action"] == "FailJobSet" and policy["maxRestarts"] > 0
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert POD["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert "command" not in CONTAINER  # it would replace tini


@pytest.mark.parametrize("name", ["skypilot_gpu.yaml", "skypilot_tpu.yaml"])
def test_skypilot_recovers_what_was_told_to_leave(name):
    resources = yaml.safe_load((ROOT / "launch" / name).read_text())["resources"]
    codes = resources["job_recovery"]["recover_on_exit_codes"]
    assert 143 in codes and 2 not in codes
    assert "max_restarts_on_errors" not in resources["job_recovery"]  # of any code
    assert resources["use_spot"]
