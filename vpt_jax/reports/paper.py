"""What was published: `data/paper_results.csv` and `data/paper_ratios.csv`.

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
import functools
import importlib.resources

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
GROUP_TASKS = 24  # of the table that `paper_ratios.csv` belongs to


@functools.cache
def _table() -> dict[tuple[str, str, str], tuple[float, str]]:
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


def top1(backbone: str, method: str, place: str) -> float | None:
    """The published top-1 [%], None where there is none.

    Args:
        backbone: Our name of it.
        method: Such as 'vpt-deep' or 'mlp-3'.
        place: A task, or a group for its mean.
    """
    row = BACKBONES.get(backbone)
    found = _table().get((row, method, GROUPS.get(place, place)))
    return None if found is None else found[0]


def source(backbone: str, method: str, place: str) -> str:
    """Where `top1` was read."""
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


def methods(backbone: str) -> list[str]:
    """Methods with published figures on a backbone, in the paper's order."""
    row = BACKBONES.get(backbone)
    return list(dict.fromkeys(m for b, m, _ in _table() if b == row))


def _read(name: str) -> list[dict]:
    path = importlib.resources.files("vpt_jax.reports") / "data" / name
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
