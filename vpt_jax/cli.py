"""The command line: flags, one function for each mode, mistakes in one line.

What is slow to import waits until a mode needs it: a mistyped command answers at once.
"""

import difflib
import functools
import itertools
import logging
import os
import pathlib
import sys
import warnings

from absl import app, flags
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from vpt_jax import shipped
from vpt_jax.errors import UserError
from vpt_jax.storage.paths import Folder

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    f"One of {', '.join(shipped.names())}, or the path of such a file; its argument "
    "follows after a colon.",
)


class _Named(ConfigFileFlagParser):
    """Takes the name of a shipped configuration as well, and none, see `_config`."""

    def parse(self, path: str):
        if not path:
            from vpt_jax.config import base

            return base(task="")
        return super().parse(shipped.located(path))


flags.FLAGS["config"].parser = _Named("config")
_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "Folder of the run; predict, serve: several may be given."
)
_IMAGES = flags.DEFINE_multi_string(
    "images", [], "predict: a file or folder; more may follow as plain arguments."
)
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "eval, predict, serve, export: of a run with several (default: says which it "
    "takes).",
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
    "output",
    None,
    "predict: a .csv or .json file (default: in the workdir, or here where there are "
    "several); plan: a .json file; "
    "report: a .md page to write as well, its figures in a folder beside it.",
)
_TUNED = flags.DEFINE_string(
    "tuned", None, "report: a .csv table that the winners of sweeps are added to."
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "serve: the address to listen at; 0.0.0.0 is all of them."
)
_PORT = flags.DEFINE_integer(
    "port", 8000, "serve: 0 is any that is free.", lower_bound=0, upper_bound=65535
)
_WINDOW = flags.DEFINE_float(
    "window", 2, "serve: milliseconds that an image waits for others.", lower_bound=0
)
_MAX_BATCH = flags.DEFINE_integer(
    "max_batch", 64, "serve: the most images at once, a power of two.", lower_bound=1
)
_REPOSITORY = flags.DEFINE_string(
    "repository", None, "serve: folder of exports that requests may load and unload."
)
_ON = flags.DEFINE_string(
    "on", None, "plan: v5e:4x8 and other TPU slices, h200, b200:8 and other GPUs, cpu."
)
_OF = flags.DEFINE_enum("of", "train", ["train", "sweep"], "plan: of which mode.")
_PRICE = flags.DEFINE_float("price", None, "plan: of a chip for an hour.")
_FORMAT = flags.DEFINE_enum(
    "format", None, ["torch", "stablehlo"], "export: for which other software."
)
_FEATURES = flags.DEFINE_integer(
    "features",
    0,
    "report: also draw t-SNE and the attention of prompts, of so many test images.",
    lower_bound=0,
)


USAGE = """Visual Prompt Tuning; `python launch.py` in a checkout is the same command.

vpt-jax --config quickstart
vpt-jax --config vtab:cifar100,vpt_deep,vit_b16 --workdir runs/a
vpt-jax --mode sweep   --config vtab:cifar100 --workdir runs/sweep
vpt-jax --mode report  --workdir runs
vpt-jax --config ... --processes 8 (several hosts: docs/launch.md)
vpt-jax --mode eval    --workdir runs/a
vpt-jax --mode predict --workdir runs/a --images photos/
vpt-jax --mode doctor  --config vtab:cifar100
vpt-jax --mode prepare --config vtab:all --config.data.dir=TFDS_DIR
vpt-jax --mode plan    --config vtab:cifar100 --on v5e:2x4
"""


def main() -> None:
    """What `launch.py` is, and the installed `vpt-jax`."""
    sys.modules["__main__"].__doc__ = USAGE  # --help shows it, and these flags
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(run, flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
    """Read the flags; a mistake is one line and exit code 2."""
    if _keys(argv) and not _config_file(argv):
        argv.insert(1, "--config=")  # else no key would be known
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.task  # noqa: B018  (a file that cannot be read says so here)
    except (flags.Error, AttributeError, OSError, TypeError, ValueError) as error:
        sys.exit(fail(_mistake(error, argv)))
    return rest


def run(argv: list[str]) -> int:
    """Run one mode; returns the exit code."""
    import jax

    from vpt_jax import parallel

    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
        cache = pathlib.Path.home() / ".cache" / "vpt_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        # A start compiles many small programs: two seconds of nine.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("gcsfs").setLevel(logging.WARNING)  # how it reads ahead
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # where it looks first
    # That there is no TPU is no news; that there is a GPU without CUDA's jax is.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    try:
        together = _PROCESSES.value, _COORDINATOR.value, _PROCESS.value
        if _MODE.value in ("train", "sweep"):
            parallel.join(*together)
        elif together != (None, None, None):
            raise UserError(
                f"--mode {_MODE.value} runs in one process, without --processes"
            )
        if argv[1:] and _MODE.value != "predict":
            raise UserError(f"unknown argument {argv[1]!r}; flags begin with --")
        return MODES[_MODE.value](argv[1:])
    except UserError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted; the same command continues from the last checkpoint")


def train(_) -> int:
    """Tune, then say what came out."""
    import vpt_jax
    from vpt_jax import parallel
    from vpt_jax.reports import summary

    config = need(_config(), "--config")
    if config.sweep.variants:
        count = len(config.sweep.variants)
        raise UserError(
            f"--config has {count} variants, a sweep each: use --mode sweep"
        )
    result = vpt_jax.tune(config, _one_workdir())
    if parallel.is_first():
        summary.show(result)
    return 0 if result["status"] == "ok" else 1


def sweep(_) -> int:
    """Try the grid, choose on the validation images, test the winner."""
    from vpt_jax import parallel
    from vpt_jax.reports import summary
    from vpt_jax.storage.paths import located
    from vpt_jax.sweeps.run import default_path, sweep

    config = need(_config(), "--config")
    workdir = _one_workdir() or default_path(config)
    results = sweep(config, workdir)
    if parallel.is_first():
        for result in results:
            summary.show_sweep(result)
        if len(results) > 1:
            _print_report(located(workdir))
    return 0 if all(result["status"] == "ok" for result in results) else 1


def report(_) -> int:
    """Tables and figures over all runs below a folder."""
    from vpt_jax.reports import settings

    workdir = _workdir()
    _print_report(workdir, pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None)
    if _TUNED.value:
        count = settings.add(workdir, pathlib.Path(_TUNED.value))
        print(f"{_TUNED.value}: settings of {count} sweeps")
    return 0


def evaluate(_) -> int:
    """Score a finished run again."""
    from vpt_jax import progress
    from vpt_jax.serving.evaluate import evaluate

    model, given = _tuned(
        *("backbone.checkpoint", "data.dir", "data.test_examples"),
        "inference.several",
    )
    asked = ("data.dir", "data.test_examples", "inference.several")
    result = evaluate(model, _workdir(), *map(given.get, asked))
    rows = [
        (key, f"{value:.2f}" if isinstance(value, float) else str(value))
        for key, value in result.items()
        if value is not None
    ]
    progress.table(rows, "eval")
    return 0


def predict(more: list[str]) -> int:
    """Classify image files, for one tuned task or for several in one pass."""
    from vpt_jax.serving.predict import predict_files, predict_tasks
    from vpt_jax.storage.paths import located

    images = need(_IMAGES.value + more, "--images")
    if len(_WORKDIR.value) > 1:
        output = located(_OUTPUT.value or "predictions.csv")
        done, broken = predict_tasks(_bank(), images, output)
    else:
        output = located(_OUTPUT.value or _workdir() / "predictions.csv")
        model, _ = _tuned("backbone.checkpoint")
        done, broken = predict_files(model, images, output)
    print(f"{done} images classified: {output}")
    if broken:
        return fail(f"{len(broken)} of {done + len(broken)} files could not be decoded")
    return 0


def serve(_) -> int:
    """Answer requests for any number of tuned tasks on one backbone."""
    try:
        from vpt_jax.serving.serve import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"--mode serve needs {error.name}: pip install 'vpt_jax[serve]'"
        ) from error

    repository = pathlib.Path(_REPOSITORY.value) if _REPOSITORY.value else None
    if repository is not None and not repository.is_dir():
        raise UserError(f"--repository {repository} is no folder")
    serve(_bank(), _HOST.value, _PORT.value, _WINDOW.value / 1000, repository)
    return 0


def export(_) -> int:
    """Write beside an export what other software needs of it."""
    from vpt_jax import exchange

    kind = need(_FORMAT.value, "--format=torch or --format=stablehlo")
    directory, manifest, given = _found("backbone.checkpoint")
    checkpoint = given.get("backbone.checkpoint")
    for path in exchange.write(kind, directory, manifest, checkpoint):
        print(path)
    return 0


def doctor(_) -> int:
    """Say what is ready and what is missing."""
    from vpt_jax import doctor as checks

    found = checks.check(need(_config(), "--config"))
    checks.show(found)
    return 0 if all(line.ready for line in found) else 2


def plan(_) -> int:
    """Say what a run or a sweep takes on devices that need not be here."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # what is here is not asked
    from vpt_jax.planning import plan as planning
    from vpt_jax.planning import show, target
    from vpt_jax.storage.files import write_json

    config = need(_config(), "--config")
    on = target.find(need(_ON.value, "--on, such as v5e:4x8"))
    output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
    if output is not None and output.suffix != ".json":
        raise UserError(f"--output {output} must end in .json")
    with warnings.catch_warnings():
        # Programs for devices that are not here cannot be loaded from the cache.
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
        found = planning.plan(config, on, _OF.value == "sweep")
    show.show(found, _PRICE.value)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, found)
        print(output)
    return 0 if found["fits"] else 1


def prepare(_) -> int:
    """Download and prepare the data of a task or a group of tasks."""
    from vpt_jax import data, prepare, progress

    config = need(_config(), "--config")
    failed = 0
    for name in data.task_names(config.task):
        progress.say(f"{name} ...")
        try:
            print(f"{name}: {prepare.prepare(name, config.data.dir)}")
        except UserError as error:
            failed = fail(str(error))  # the others may still be prepared
    return failed


MODES = {
    "train": train,
    "sweep": sweep,
    "report": report,
    "eval": evaluate,
    "predict": predict,
    "serve": serve,
    "export": export,
    "doctor": doctor,
    "prepare": prepare,
    "plan": plan,
}
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")


def _config():
    """What --config names. Keys alone name nothing: they change what a run was of."""
    config = _CONFIG.value
    return config if config is not None and config.task else None


def need(value, flag: str):
    """The value of a flag that this mode cannot do without."""
    if not value:
        raise UserError(f"--mode {_MODE.value} needs {flag}")
    return value


def fail(message: str) -> int:
    """One line for what the user can change; exit code 2."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _workdir() -> Folder:
    from vpt_jax.storage.paths import workdir

    return workdir(need(_one_workdir(), "--workdir"))


def _one_workdir() -> str | None:
    """The --workdir of a mode that has one, if it is given."""
    given = _WORKDIR.value
    if len(given) > 1:
        raise UserError(
            f"--mode {_MODE.value} takes one --workdir, not {len(given)}: "
            f"{', '.join(given)}"
        )
    return given[0] if given else None


def _bank():
    """All exports below every --workdir, on their common backbone."""
    from vpt_jax.serving.bank import open_bank
    from vpt_jax.serving.exported import exports_below

    folders: dict = {}
    for workdir in need(_WORKDIR.value, "--workdir"):
        found = exports_below(workdir)
        twice = sorted(folders.keys() & found.keys())
        if twice:
            raise UserError(
                f"two of the --workdir hold a {twice[0]!r}; give the folder above both"
            )
        folders |= found
    given = _heeded("backbone.checkpoint")
    checkpoint = given.get("backbone.checkpoint")
    return open_bank(folders, checkpoint, _SEED.value, max_batch=_MAX_BATCH.value)


def _print_report(workdir: Folder, page: Folder | None = None) -> None:
    from vpt_jax.reports import report

    for path in report.write(workdir, _FEATURES.value, page):
        print(path)


def _tuned(*obeyed: str):
    """(the tuned model of --workdir, what --config changes); see `_found`."""
    from vpt_jax.serving.load import open_export

    directory, manifest, given = _found(*obeyed)
    return open_export(directory, manifest, given.get("backbone.checkpoint")), given


def _found(*obeyed: str):
    """(the export of --workdir, its manifest, what --config changes).

    Args:
        obeyed: The keys of a configuration that this mode heeds.

    Raises:
        UserError: --config asks for something else, which it would not get.
    """
    from vpt_jax.serving.load import find

    config, given = _config(), _heeded(*obeyed)
    directory, manifest = find(_workdir(), _SEED.value)
    if config is not None:
        _refuse_another(config, manifest["config"])
    return directory, manifest, given


def _heeded(*obeyed: str) -> dict:
    """What --config changes, by key; see `_found`."""
    if _CONFIG.value is None:
        return {}
    given = config_flags.get_override_values(flags.FLAGS["config"])
    ignored = [key for key in given if key not in obeyed]
    if ignored:
        raise UserError(
            f"--mode {_MODE.value} takes everything from the run and cannot heed "
            f"--config.{ignored[0]}; it heeds --config.{', --config.'.join(obeyed)}"
        )
    return given


def _refuse_another(config, found: dict) -> None:
    """Raise UserError where --config names something else than the run was of."""
    from vpt_jax import methods

    asked, options = methods.named(config.method.name)
    own = {key: found["method"][key] for key in options}
    pairs = {
        "task": (config.task, found["task"]),
        "backbone": (config.backbone.name, found["backbone"]["name"]),
        "method": ((asked, options), (found["method"]["name"], own)),
    }
    for what, (named, was) in pairs.items():
        if named != was:
            raise UserError(
                f"--config names another {what} than the run in {_one_workdir()} has: "
                f"{named}, not {was}; leave --config out or name that one"
            )


def _mistake(error: BaseException, argv: list[str]) -> str:
    """What a user should read of an error in the flags or in a config file."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    for cause in reversed(causes):
        if isinstance(cause, UserError):
            return str(cause)
    unknown = [key for key in _keys(argv) if key not in _known_keys()]
    if unknown:
        near = _near(unknown[0])
        meant = f"did you mean --config.{near}? " if near else ""
        known = ", ".join(_known_keys())
        return f"unknown --config.{unknown[0]}; {meant}known config keys: {known}"
    if isinstance(error, flags.Error) and "config file" not in str(error):
        return str(error)
    path = _config_file(argv)
    if not pathlib.Path(shipped.located(path)).is_file():
        known = ", ".join(shipped.names())
        return f"--config {path}: there is no such file; without a path: {known}"
    if "has no attribute 'get_config'" in str(error):
        return f"--config {path}: the file has no function get_config"
    return f"--config {path}: {causes[-1]}; write --config {path}:ARGUMENT"


def _near(key: str) -> str | None:
    """The known key that a mistaken one stands for: the name of its group (method,
    method.name), the same name elsewhere (lr, optim.lr), else the most alike."""
    known = _known_keys()
    named = [other for other in known if other == f"{key}.name"]
    name = key.rpartition(".")[2]
    moved = [other for other in known if other.rpartition(".")[2] == name]
    alike = difflib.get_close_matches(key, known, n=1)
    return next(iter(named + moved + alike), None)


def _config_file(argv: list[str]) -> str:
    """The file that --config names."""
    for word, after in itertools.pairwise([*argv, ""]):
        name, equals, value = word.lstrip("-").partition("=")
        if word[:1] == "-" and name == "config":
            return (value if equals else after).partition(":")[0]
    return ""


def _keys(argv: list[str]) -> list[str]:
    """The configuration's keys that a command line sets."""
    words = (word.lstrip("-").partition("=")[0] for word in argv if word[:1] == "-")
    prefix = "config."
    return [word.removeprefix(prefix) for word in words if word.startswith(prefix)]


@functools.cache
def _known_keys() -> tuple[str, ...]:
    """Of every configuration: 'epochs', 'optim.lr'."""
    from vpt_jax.config import base

    keys = []
    for key, value in base("digits").items():
        nested = hasattr(value, "items")
        keys += [f"{key}.{name}" for name in value] if nested else [key]
    return tuple(keys)
