"""What a configuration needs, and whether it is there."""

import dataclasses
import pathlib

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from vpt_jax import backbones, checkpoints, data, prepare, resolution
from vpt_jax.checkpoints import fetch, files, zoo
from vpt_jax.data.source import fingerprint
from vpt_jax.data.splits import Splits
from vpt_jax.errors import UserError
from vpt_jax.experiment import BackboneChoice
from vpt_jax.runs.folder import environment
from vpt_jax.storage.cache import cache_dir
from vpt_jax.types import Config


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report."""

    what: str
    ready: bool
    finding: str


def check(config: Config) -> list[Check]:
    """Look at devices, configuration, backbone file and data; downloads nothing.

    Where `config.task` stands for several tasks, each one's data is looked for but not
    read. Where `config.backbone.checkpoint` is a folder, every checkpoint below it is
    compared with what is known of the file that it should be.
    """
    found = environment()
    versions = ", ".join(f"{k} {v}" for k, v in found["packages"].items())
    checks = [
        Check("python", True, f"{found['python']}; {versions}"),
        Check("devices", True, f"{jax.device_count()} x {found['devices'][0]}"),
    ]
    names = data.task_names(config.task)
    try:
        experiment = resolution.resolve(_with_task(config, names[0]))
    except UserError as error:
        return [*checks, Check("config", False, str(error))]
    network = experiment.network
    choice = f"{config.task}, {network.method_name}, {network.backbone.name}"
    checks.append(Check("config", True, f"{choice}; {network.image_size} px"))
    folder = pathlib.Path(network.backbone.checkpoint or "").expanduser()
    if network.backbone.checkpoint and folder.is_dir():
        checks += verified(folder)
    else:
        checks.append(_backbone(network.backbone))
    if len(names) == 1:
        return [*checks, _data(experiment.data)]
    return [*checks, *(survey(name, config.data.dir) for name in names)]


def survey(name: str, data_dir: str | None) -> Check:
    """Whether a task's data is there, how large it is and what to do about it."""
    try:
        found = prepare.status(name, data_dir)
    except UserError as error:
        return Check(name, False, str(error))
    size = "" if found.gigabytes is None else f"{found.gigabytes:.1f} GB"
    size = size if found.ready or not size else f"takes about {size}"
    state = found.state if found.ready else f"{found.state}: {found.what_to_do}"
    return Check(name, found.ready, "; ".join(filter(None, [state, size, found.where])))


def verified(folder: pathlib.Path) -> list[Check]:
    """A line for every checkpoint below a folder: whether it is the published one."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in files.READERS]
    if not found:
        endings = ", ".join(files.READERS)
        return [Check("files", False, f"{folder} holds no checkpoint ({endings})")]
    return [_verified(path, str(path.relative_to(folder))) for path in found]


def _verified(path: pathlib.Path, what: str) -> Check:
    try:
        sha256 = fetch.sha256_of(path)
        entry = zoo.identify(path, sha256)
        if entry is None:
            return Check(what, True, f"of no known backbone; sha256 {sha256}")
        zoo.verify(entry, path)
    except (OSError, UserError) as error:
        return Check(what, False, str(error))
    known = zoo.stated(entry)
    if not known:
        unknown = f"{entry.name} by its name; no hash is known, sha256 {sha256}"
        return Check(what, True, unknown)
    return Check(what, True, f"{entry.name}, verified: {known}")


def show(checks: list[Check]) -> None:
    """A table on stdout."""
    table = Table(title="doctor", title_justify="left", show_lines=True)
    for column in ("what", "ready", "finding"):
        table.add_column(column)
    for line in checks:
        mark = "[green]yes[/green]" if line.ready else "[red]no[/red]"
        table.add_row(line.what, mark, line.finding)
    Console().print(table)


def _backbone(choice: BackboneChoice) -> Check:
    name, source = choice.name, choice.checkpoint
    if source is None and zoo.is_remote(zoo.lookup(name)):
        return _of_the_zoo(zoo.lookup(name))
    about = f" ({zoo.describe(zoo.lookup(name))})" if source is None else ""
    source = source or zoo.lookup(name).url
    if "://" in source:
        problem = files.lacking(source)
        if problem:
            return Check("backbone", False, f"{name}: {source} {problem}")
        finding = f"{name} is read from {source}, kept in {cache_dir()}"
        return Check("backbone", True, finding)
    try:
        size = backbones.get_config(name).image_size
        loaded = checkpoints.load(
            name, choice.checkpoint, size, dtype="float32", frozen_dtype=choice.dtype
        )
    except UserError as error:
        return Check("backbone", False, str(error))
    finding = f"{name}{about} from {source}, sha256 {loaded.sha256}"
    return Check("backbone", True, finding)


def _of_the_zoo(entry: zoo.Entry) -> Check:
    """Whether a published file can be fetched and read, and how sure one can be."""
    about = f"{entry.name} ({zoo.describe(entry)})"
    problem = files.lacking(entry.url)
    if problem:
        finding = f"{about}: {entry.url} {problem}{zoo.instead(entry)}"
        return Check("backbone", False, finding)
    try:
        source = zoo.address(entry)
    except UserError as error:
        return Check("backbone", False, str(error))
    known = zoo.stated(entry) or "no hash is known, that of the download is printed"
    finding = f"{about} is read from {source}, kept in {cache_dir()}; {known}"
    return Check("backbone", True, finding)


def _with_task(config: Config, name: str) -> Config:
    config = ConfigDict(config.copy_and_resolve_references())
    config.task = name
    return config


def _data(splits: Splits) -> Check:
    task = splits.task
    try:
        line = survey(task.name, splits.directory)
        if not line.ready:
            return dataclasses.replace(line, what="data")
        train = splits.training()
        digest = fingerprint(train)
        task.load("test", splits.directory, limit=1)
    except UserError as error:
        return Check("data", False, str(error))
    return Check(
        "data",
        True,
        f"{task.name}: {len(train):,} training images of {task.num_classes} classes, "
        f"fingerprint {digest}; test images found",
    )
