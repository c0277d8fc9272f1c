"""The results below a folder, each with the name that the paper's tables use."""

import dataclasses
import pathlib

from vpt_jax import data, methods
from vpt_jax.errors import UserError
from vpt_jax.runs.files import read_json


@dataclasses.dataclass(frozen=True)
class Run:
    """A result and where it was found.

    Attributes:
        path: The folder.
        method: As the paper names it, such as 'vpt-deep'.
        variant: Of an ablation; '' without.
        group: Of the task.
        result: result.json.
    """

    path: pathlib.Path
    method: str
    variant: str
    group: str
    result: dict

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.result["task"]

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.result["backbone"]

    @property
    def top1(self) -> float | None:
        """On the test images, mean over seeds; None where all failed."""
        return self.result["test_top1"]

    @property
    def swept(self) -> bool:
        """Whether its learning rate was chosen by a sweep."""
        return "sweep" in self.result


def collect(root: pathlib.Path) -> tuple[list[Run], list[str]]:
    """(one run for every task, method, variant and backbone; what was left out).

    Where there are several, a sweep counts before single runs, more seeds before
    fewer, then the first by path.

    Raises:
        UserError: There is none.
    """
    found = []
    for path in sorted(root.rglob("result.json")):
        if path.parent.name == "final" and (path.parents[1] / "plan.json").exists():
            continue  # the runs behind a sweep's own result
        found.append(_read(path))
    if not found:
        raise UserError(f"--workdir {root} holds no finished run (no result.json)")
    best: dict[tuple, Run] = {}
    left_out = []
    for run in sorted(found, key=_rank):
        key = (run.backbone, run.task, run.method, run.variant)
        if key in best:
            left_out.append(f"{run.path}: {best[key].path} is used instead")
        elif run.top1 is None:
            left_out.append(f"{run.path}: {run.result['status']}")
        else:
            best[key] = run
    return sorted(best.values(), key=_order), left_out


def method_label(name: str, options: dict, backbone: str = "") -> str:
    """'prompt' with its options to 'vpt-deep'; 'mlp' to 'mlp-3'."""
    return methods.label(name, options, backbone)


def _read(path: pathlib.Path) -> Run:
    result = read_json(path)
    try:
        task = result["task"]
        named = result["method"], result["method_options"], result["backbone"]
        label = method_label(*named)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not the result of a run: no {error}") from error
    known = data.TASKS.get(task)
    group = result.get("group") or (known().group if known else "own")
    chosen = result.get("sweep", {})
    variant = chosen.get("variant", "")
    if "reduction=" in chosen.get("label", ""):
        label = label.rpartition("-")[0]  # chosen per task, as in the paper's table 1
    return Run(path.parent, label, variant, group, result)


def _rank(run: Run):
    seeds = run.result["seed"]
    count = len(seeds) if isinstance(seeds, list) else 1
    return run.top1 is None, not run.swept, -count, str(run.path)


def _order(run: Run):
    tasks = list(data.TASKS)
    names = ["full", "linear", "partial-1", "mlp-3", "sidetune", "bias", "adapter"]
    names += ["vpt-shallow", "vpt-deep", *methods.METHODS]
    position = names.index(run.method) if run.method in names else len(names)
    task = tasks.index(run.task) if run.task in tasks else len(tasks)
    variant = run.result["sweep"]["variant_position"] if run.variant else 0
    return run.backbone, position, run.method, variant, run.variant, task, run.task
