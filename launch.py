"""The one command of vpt_jax.

python launch.py --config configs/quickstart.py
python launch.py --config configs/vtab.py:cifar100,vpt_deep,vit_b16 --workdir runs/a
python launch.py --mode sweep   --config configs/vtab.py:cifar100 --workdir runs/sweep
python launch.py --mode report  --workdir runs
python launch.py --config ... --processes 8 (several hosts: docs/scaling.md)
python launch.py --mode eval    --workdir runs/a
python launch.py --mode predict --workdir runs/a --images photos/
python launch.py --mode doctor  --config configs/vtab.py:cifar100
python launch.py --mode prepare --config configs/vtab.py:all --config.data.dir=TFDS_DIR
"""

import inspect
import itertools
import logging
import os
import pathlib
import runpy
import sys

from absl import app, flags
from ml_collections import config_flags

MODES = ("train", "sweep", "report", "eval", "predict", "doctor", "prepare")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with its argument after a colon."
)
_MODE = flags.DEFINE_string("mode", "train", f"One of {', '.join(MODES)}.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_IMAGES = flags.DEFINE_multi_string(
    "images", [], "predict: a file or folder; more may follow as plain arguments."
)
_PROCESSES = flags.DEFINE_integer(
    "processes",
    None,
    "train, sweep: how many processes run this command together.",
    lower_bound=1,
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT where process 0 listens, where nothing tells it."
)
_PROCESS = flags.DEFINE_integer(
    "process", None, "The number of this process from 0, where nothing tells it."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "predict: a .csv or .json file (default: in the workdir)."
)
_FEATURES = flags.DEFINE_integer(
    "features",
    0,
    "report: also draw t-SNE and the attention of prompts, of so many test images.",
    lower_bound=0,
)


def main(argv: list[str]) -> int:
    """Run one mode; returns the exit code."""
    import jax  # after the flags: a mistyped command answers at once

    from vpt_jax import parallel
    from vpt_jax.errors import UserError

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        cache = pathlib.Path.home() / ".cache" / "vpt_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        # A start compiles many small programs: two seconds of nine.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logging.getLogger("absl").setLevel(logging.ERROR)
    # That there is no TPU is no news; that there is a GPU without CUDA's jax is.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    try:
        together = _PROCESSES.value, _COORDINATOR.value, _PROCESS.value
        if _MODE.value in ("train", "sweep"):
            parallel.join(*together)
        elif together != (None, None, None):
            return fail(
                f"--mode {_MODE.value} runs in one process, without --processes"
            )
        modes = train, sweep, report, evaluate, predict, doctor, prepare
        return dict(zip(MODES, modes, strict=True))[_MODE.value](argv[1:])
    except UserError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted; the same command continues from the last checkpoint")


def train(more: list[str]) -> int:
    """Tune, then say what came out."""
    if more:
        return fail(f"unknown argument {more[0]!r}; flags begin with --")
    import vpt_jax
    from vpt_jax import parallel
    from vpt_jax.reports import summary

    config = need(_CONFIG.value, "--config")
    if config.sweep.variants:
        count = len(config.sweep.variants)
        return fail(f"--config has {count} variants, a sweep each: use --mode sweep")
    result = vpt_jax.tune(config, _WORKDIR.value)
    if parallel.is_first():
        summary.show(result)
    return 0 if result["status"] == "ok" else 1


def sweep(more: list[str]) -> int:
    """Try the grid, choose on the validation images, test the winner."""
    if more:
        return fail(f"unknown argument {more[0]!r}; flags begin with --")
    from vpt_jax import parallel
    from vpt_jax.reports import summary
    from vpt_jax.sweeps.run import default_path, sweep

    config = need(_CONFIG.value, "--config")
    workdir = pathlib.Path(_WORKDIR.value or default_path(config))
    results = sweep(config, workdir)
    if parallel.is_first():
        for result in results:
            summary.show_sweep(result)
        if len(results) > 1:
            print_report(workdir)
    return 0 if all(result["status"] == "ok" for result in results) else 1


def report(_) -> int:
    """Tables and figures over all runs below a folder."""
    print_report(pathlib.Path(need(_WORKDIR.value, "--workdir")))
    return 0


def print_report(workdir: pathlib.Path) -> None:
    """Write it, and say where it is."""
    from vpt_jax.reports import report

    for path in report.write(workdir, _FEATURES.value):
        print(path)


def evaluate(_) -> int:
    """Score a finished run again."""
    from vpt_jax import api, progress

    workdir = pathlib.Path(need(_WORKDIR.value, "--workdir"))
    config = _CONFIG.value
    model = api.load(workdir, config and config.backbone.checkpoint)
    overrides = (
        {}
        if config is None
        else {
            "dir": config.data.dir,
            "test_examples": config.data.test_examples,
        }
    )
    result = api.evaluate(model, workdir, overrides)
    rows = [
        (key, f"{value:.2f}" if isinstance(value, float) else str(value))
        for key, value in result.items()
        if value is not None
    ]
    progress.table(rows, "eval")
    return 0


def predict(more: list[str]) -> int:
    """Classify image files."""
    from vpt_jax import api
    from vpt_jax.predict import predict_files

    workdir = pathlib.Path(need(_WORKDIR.value, "--workdir"))
    images = need(_IMAGES.value + more, "--images")
    output = pathlib.Path(_OUTPUT.value or workdir / "predictions.csv")
    config = _CONFIG.value
    model = api.load(workdir, config and config.backbone.checkpoint)
    done, broken = predict_files(model, images, output)
    print(f"{done} images classified: {output}")
    if broken:
        return fail(f"{len(broken)} of {done + len(broken)} files could not be decoded")
    return 0


def doctor(_) -> int:
    """Say what is ready and what is missing."""
    from vpt_jax import doctor as checks

    found = checks.check(need(_CONFIG.value, "--config"))
    checks.show(found)
    return 0 if all(line.ready for line in found) else 2


def prepare(_) -> int:
    """Download and prepare the data of a task or a group of tasks."""
    from vpt_jax import data, prepare, progress
    from vpt_jax.errors import UserError

    config = need(_CONFIG.value, "--config")
    failed = 0
    for name in data.task_names(config.task):
        progress.say(f"{name} ...")
        try:
            print(f"{name}: {prepare.prepare(name, config.data.dir)}")
        except UserError as error:
            failed = fail(str(error))  # the others may still be prepared
    return failed


def need(value, flag: str):
    """The value of a flag that this mode cannot do without."""
    from vpt_jax.errors import UserError

    if not value:
        raise UserError(f"--mode {_MODE.value} needs {flag}")
    return value


def fail(message: str) -> int:
    """One line for what the user can change; exit code 2."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def parse(argv: list[str]) -> list[str]:
    """Read the flags; a mistake is one line and exit code 2."""
    from vpt_jax.errors import UserError

    try:
        _check_config(argv)
        rest = flags.FLAGS(argv)
        if _MODE.value not in MODES:
            raise UserError(
                f"unknown --mode {_MODE.value!r}; known: {', '.join(MODES)}"
            )
    except (UserError, flags.Error) as error:
        sys.exit(fail(str(error)))
    return rest


def _check_config(argv: list[str]) -> None:
    """Refuse what the flag parser would answer with a traceback or a riddle.

    Raises:
        UserError: No such config file, not its argument, or an unknown key.
    """
    from vpt_jax.errors import UserError

    words = [word.lstrip("-") for word in argv[1:] if word.startswith("-")]
    values = [word.partition("=")[2] for word in words if word.startswith("config=")]
    values += [b for a, b in itertools.pairwise(argv) if a in ("--config", "-config")]
    if not values:
        return
    path, *argument = values[-1].split(":", 1)
    if not pathlib.Path(path).is_file():
        raise UserError(f"--config {path}: there is no such file")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"--config {path}: the file has no function get_config")
    try:
        inspect.signature(get_config).bind(*argument)
    except TypeError as error:
        raise UserError(
            f"--config {path}: {error}; write --config {path}:ARGUMENT"
        ) from error
    keys = []
    for key, value in get_config(*argument).items():
        nested = hasattr(value, "items")
        keys += [f"{key}.{name}" for name in value] if nested else [key]
    given = [w.partition("=")[0] for w in words if w.startswith("config.")]
    wrong = [word for word in given if word.removeprefix("config.") not in keys]
    if wrong:
        raise UserError(
            f"unknown --{', --'.join(wrong)}; known config keys: {', '.join(keys)}"
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
