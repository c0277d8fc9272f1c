"""The results below a folder, each with the name that the paper's tables use."""

import dataclasses

from vpt_jax import data, methods
from vpt_jax.errors import UserError
from vpt_jax.reports.outputs import is_report
from vpt_jax.reports.result import Result, place
from vpt_jax.storage.files import read_json
from vpt_jax.storage.paths import Folder, every
from vpt_jax.training.head_start import RANDOM


@dataclasses.dataclass(frozen=True)
class Run(Result):
    """A result and where it was found.

    Attributes:
        path: The folder.
        method: As the paper names it, such as 'vpt-deep'.
        variant: Of an ablation; '' without.
        group: Of the task.
    """

    path: Folder
    method: str
    variant: str
    group: str

    @property
    def score(self) -> float:
        """On the test images; `collect` leaves out runs without any."""
        found = super().score
        assert found is not None
        return found

    @property
    def swept(self) -> bool:
        """Whether its learning rate was chosen by a sweep."""
        return "sweep" in self.result

    @property
    def head_start(self) -> str:
        """Of `training.head_start.HEAD_STARTS`; of earlier versions the random one."""
        folder = self.path / "final" if self.swept else self.path
        config = read_json(folder / "config.json") or {}
        return config.get("optim", {}).get("head_start", RANDOM)

    @property
    def ablation(self) -> str:
        """The title that its variants share; '' without."""
        return self.result["sweep"].get("ablation", "") if self.variant else ""

    @property
    def who(self) -> str:
        """'vpt-deep on cifar100', with the variant where there is one."""
        return f"{self.method} {self.variant}".strip() + f" on {self.task}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs whose scores may be compared: of one backbone, one metric and one head.

    Attributes:
        runs: One for each method and task, without the variants of ablations.
    """

    runs: tuple[Run, ...]

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.runs[0].backbone

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.runs[0].metric

    @property
    def head(self) -> str:
        """Name of the head; '' where the objective has one."""
        return self.runs[0].head

    @property
    def sign(self) -> int:
        """1 where higher scores are better, else -1."""
        return self.runs[0].sign

    @property
    def place(self) -> str:
        """What its files are named by."""
        return place("_".join(filter(None, (self.backbone, self.head))), self.metric)

    @property
    def methods(self) -> dict[str, list[Run]]:
        """The runs of each method, in the order of the paper's tables."""
        methods: dict[str, list[Run]] = {}
        for run in self.runs:
            methods.setdefault(run.method, []).append(run)
        return methods

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks."""
        return list(dict.fromkeys(run.task for run in self.runs))

    @property
    def panels(self) -> dict[str, dict[str, list[Run]]]:
        """By group the methods that have all of its tasks, where these are two or more.

        Groups are the paper's, and go by their task where they have one; any other
        task is alone.
        """
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            group = run.group if run.group in data.GROUPS else run.task
            groups.setdefault(group, []).append(run)
        panels = {}
        for group, inside in groups.items():
            of_methods: dict[str, list[Run]] = {}
            for run in inside:
                of_methods.setdefault(run.method, []).append(run)
            tasks = list(dict.fromkeys(run.task for run in inside))
            # A mean over fewer tasks is another figure.
            complete = {m: r for m, r in of_methods.items() if len(r) == len(tasks)}
            if len(complete) > 1:
                several = f"{group}, mean of {len(tasks)}"
                panels[several if len(tasks) > 1 else tasks[0]] = complete
        return panels


def comparisons(runs: list[Run]) -> list[Comparison]:
    """What may be compared, backbone by backbone."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if not run.variant:
            key = run.backbone, run.metric, run.head
            found.setdefault(key, []).append(run)
    return [Comparison(tuple(alike)) for alike in found.values()]


def collect(root: Folder) -> tuple[list[Run], list[str]]:
    """(a run of each task, metric, head, method, backbone and, of each ablation,
    variant; what is left out).

    Where there are several, a sweep counts before single runs, more finished seeds
    before fewer, then the first by path.

    Raises:
        UserError: There is none.
    """
    found = []
    for path in (p for p in every(root) if p.name == "result.json"):
        if path.parent.name == "final" and (path.parents[1] / "plan.json").exists():
            continue  # the runs behind a sweep's own result
        if any(p.name == "report" and is_report(p) for p in path.parents):
            continue
        found.append(_read(path))
    if not found:
        raise UserError(f"--workdir {root} holds no finished run (no result.json)")
    best: dict[tuple, Run] = {}
    left_out = []
    for run in sorted(found, key=_rank):
        key = (run.backbone, run.task, run.metric, run.head, run.method)
        key += (run.ablation, run.variant)
        if key in best:
            used = best[key].path.relative_to(root)
            left_out.append(f"{run.path.relative_to(root)}: {used} is used instead")
        elif not run.finished:
            left_out.append(f"{run.path.relative_to(root)}: {run.result['status']}")
        else:
            best[key] = run
    return sorted(_portable(list(best.values())), key=_order), left_out


def method_label(name: str, options: dict, backbone: str = "") -> str:
    """'prompt' with its options to 'vpt-deep'; 'mlp' to 'mlp-3'."""
    return methods.label(name, options, backbone)


def _read(path: Folder) -> Run:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not the result of a run: no keys and values")
    result = Result(content)
    try:
        named = content["method"], content["method_options"], content["backbone"]
        label = method_label(*named)
        _ = result.task, result.backbone, result.score, result.std, result.failed
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not the result of a run: no {error}") from error
    known = data.TASKS.get(result.task)
    group = content.get("group") or (known().group if known else "own")
    chosen = content.get("sweep", {})
    variant = chosen.get("variant", "")
    if "reduction=" in chosen.get("label", ""):
        label = label.rpartition("-")[0]  # chosen per task, as in the paper's table 1
    return Run(content, path.parent, label, variant, group)


def _portable(runs: list[Run]) -> list[Run]:
    """Folders of images by their own names, unless two have the same."""
    names = {run.task: data.portable_name(run.task) for run in runs}
    shared = {n for n in names.values() if list(names.values()).count(n) > 1}
    return [
        run
        if (name := names[run.task]) in shared
        else dataclasses.replace(run, result=run.result | {"task": name})
        for run in runs
    ]


def _rank(run: Run):
    return not run.finished, not run.swept, -len(run.finished), str(run.path)


def _order(run: Run):
    tasks = list(data.TASKS)
    names = ["full", "linear", "partial-1", "mlp-3", "sidetune", "bias", "adapter"]
    names += ["vpt-shallow", "vpt-deep", *methods.METHODS]
    matches = (
        run.method == name or run.method.startswith(f"{name}-") for name in names
    )
    position = next((k for k, match in enumerate(matches) if match), len(names))
    task = tasks.index(run.task) if run.task in tasks else len(tasks)
    what = (position, run.method)
    if run.variant:  # behind the methods themselves, one ablation after the other
        what = (len(names) + 1, run.ablation, run.result["sweep"]["variant_position"])
    return run.backbone, what, run.variant, task, run.task
