"""What a configuration needs, and whether it is there."""

import dataclasses

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from vpt_jax import backbones, checkpoints, data, prepare, resolution
from vpt_jax.checkpoints import files, zoo
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
    read.
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
    about = f" ({zoo.describe(zoo.lookup(name))})" if source is None else ""
    source = source or zoo.lookup(name).url
    if "://" in source:
        problem = files.lacking(source)
        if problem:
            return Check("backbone", False, f"{name}{about}: {source} {problem}")
        finding = f"{name}{about} is read from {source}, kept in {cache_dir()}"
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
