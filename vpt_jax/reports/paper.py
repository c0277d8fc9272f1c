"""What was published: `data/paper_results.csv`, `paper_ratios.csv`, `paper_tests.csv`.

Figures of Jia, Tang et al. (ECCV 2022, arXiv 2203.12119). The column `source` names
where each was read, several where they agree:

    VFPT   Zeng et al., Visual Fourier Prompt Tuning (NeurIPS 2024), which reprints them
    HTA    Householder transformation-based adaptation;  RLRR  CVPR 2024
    SNELL  NeurIPS 2024;  HYP  HyperAdapter;  SYN  V-PETL Bench
    N1     a transcription of the full arXiv paper
    REPO   output of the notebook in the authors' repository

'Total parameters' of a table is 1 + the tuned parameters of all its tasks / backbone.
"""

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Sequence

from vpt_jax import data

BACKBONES = {
    "vit_b16": "ViT-B/16 sup IN-21k",
    "vit_l16": "ViT-L/16 sup IN-21k",
    "vit_h14": "ViT-H/14 sup IN-21k",
    "mae_b16": "ViT-B/16 MAE IN-1k",
    "mocov3_b16": "ViT-B/16 MoCo v3 IN-1k",
    "swin_b": "Swin-B sup IN-21k",
    "convnext_b": "ConvNeXt-B sup IN-21k",
    "resnet50": "ResNet-50 sup IN-1k",
}
"""Our backbones that the paper has a row of."""

GROUPS = {"natural": "VTAB-Natural", "specialized": "VTAB-Specialized"} | {
    "structured": "VTAB-Structured",
    "fgvc": "FGVC",
}
METRIC = "top1"  # of every published figure


@functools.cache
def _table() -> dict[tuple[str | None, str, str], tuple[float, str]]:
    return {
        (
            r["backbone"],
            r["method"],
            r["suite"] if r["task"] == "mean" else r["task"],
        ): (
            float(r["top1"]),
            r["source"],
        )
        for r in _read("paper_results.csv")
    }


def score(backbone: str, method: str, place: str, metric: str) -> float | None:
    """The published score, None where there is none.

    Args:
        backbone: Our name of it.
        method: Such as 'vpt-deep' or 'mlp-3'.
        place: A task, or a group for its mean.
        metric: Of the score that stands beside it.
    """
    key = (BACKBONES.get(backbone), method, GROUPS.get(place, place))
    return _table().get(key, (None, ""))[0] if metric == METRIC else None


def of_groups(
    backbone: str, method: str, groups: Sequence[str], metric: str
) -> float | None:
    """The published mean over all tasks of some groups; None where one has none.

    Args:
        backbone, method, metric: As of `score`.
        groups: Keys of `GROUPS`.
    """
    scores: list[float | None] = []
    for group in groups:
        tasks = data.GROUPS[group]
        printed = score(backbone, method, group, metric)
        each = [score(backbone, method, task, metric) for task in tasks]
        scores += each if printed is None else [printed] * len(tasks)
    known = [value for value in scores if value is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def source(backbone: str, method: str, place: str) -> str:
    """Where `score` was read."""
    key = (BACKBONES.get(backbone), method, GROUPS.get(place, place))
    return _table().get(key, (None, ""))[1]


@functools.cache
def ratios(backbone: str) -> dict[str, float]:
    """Published total parameters over 24 tasks, in backbones, by method."""
    row = BACKBONES.get(backbone)
    return {
        r["method"]: float(r["ratio_24_tasks"])
        for r in _read("paper_ratios.csv")
        if r["backbone"] == row
    }


@dataclasses.dataclass(frozen=True)
class Tests:
    """The paper's table 10 and figure 16: a method against another on VTAB-1k.

    Attributes:
        wilcoxon: p value over the 19 tasks, one-sided: that the method is not better.
        welch: Tasks where it is better by Welch's t-test over seeds, such as
            '11 of 19'; '' where only the sum over all methods was published.
    """

    wilcoxon: float
    welch: str


@functools.cache
def tests(backbone: str, method: str, other: str, metric: str) -> Tests | None:
    """What was published of a pair of methods, of scores of this metric."""
    row = BACKBONES.get(backbone)
    for r in _read("paper_tests.csv"):
        found = r["backbone"], r["method"], r["other"], METRIC
        if found == (row, method, other, metric):
            return Tests(float(r["wilcoxon_one_sided_p"]), r["welch"])
    return None


def methods(backbone: str) -> list[str]:
    """Methods with published figures on a backbone, in the paper's order."""
    row = BACKBONES.get(backbone)
    return list(dict.fromkeys(m for b, m, _ in _table() if b == row))


def _read(name: str) -> list[dict]:
    path = importlib.resources.files("vpt_jax.reports") / "data" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
