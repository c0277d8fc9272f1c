"""The score of a result.json, read under the name of its own metric."""

import dataclasses

from vpt_jax.objectives import OBJECTIVES

_OLDER = "top1"  # of results that do not name their metric


def label(metric: str) -> str:
    """With its unit, such as 'top-1 [%]'; an unknown metric is its own label."""
    labels = {o.METRIC: f"{o.LABEL} [{o.UNIT}]" for o in OBJECTIVES.values()}
    return labels.get(metric, metric)


def name(metric: str) -> str:
    """The label without the unit."""
    return label(metric).removesuffix(" [%]")


def title(metric: str) -> str:
    """The name at the beginning of a line: 'Top-1', 'mIoU'."""
    known = name(metric)
    return known.capitalize() if known.islower() else known


def is_percent(metric: str) -> bool:
    """Whether it goes from 0 to 100."""
    return label(metric).endswith("[%]")


def digits(metric: str) -> int:
    """Decimals that are worth showing."""
    return 2 if is_percent(metric) else 4


def with_unit(metric: str, value: float | None) -> str:
    """'90.00 %'; '-' for nothing."""
    if value is None:
        return "-"
    return f"{value:.{digits(metric)}f}" + " %" * is_percent(metric)


def place(text: str, metric: str) -> str:
    """Part of a file name: the text, and the metric where it is not the usual one."""
    return text if metric == _OLDER else f"{text}_{metric}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run reported.

    Attributes:
        result: result.json.
    """

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
    def head(self) -> str:
        """Of its objective, where that has several; '' else."""
        return self.result.get("head", "")

    @property
    def metric(self) -> str:
        """What the score is, such as 'top1'."""
        return self.result.get("metric", _OLDER)

    @property
    def sign(self) -> int:
        """1 where higher scores are better, else -1."""
        return 1 if self.result.get("higher_is_better", True) else -1

    @property
    def score(self) -> float | None:
        """On the test images, mean over the seeds that finished; None without any."""
        return self.result[f"test_{self.metric}"]

    @property
    def std(self) -> float | None:
        """Population deviation over the seeds; None where fewer than two finished."""
        few = len(self.finished) < 2
        return None if few else self.result[f"test_{self.metric}_std"]

    @property
    def seeds(self) -> list[int]:
        """All that were started."""
        seeds = self.result["seed"]
        return seeds if isinstance(seeds, list) else [seeds]

    @property
    def scores(self) -> list[float | None]:
        """Seed by seed, None where it failed."""
        return self.result[f"test_{self.metric}_per_seed"]

    @property
    def finished(self) -> list[float]:
        """The scores of the seeds that did not fail."""
        return [score for score in self.scores if score is not None]

    @property
    def failed(self) -> list[int]:
        """The seeds that did."""
        pairs = zip(self.seeds, self.scores, strict=True)
        return [seed for seed, score in pairs if score is None]

    @property
    def count(self) -> str:
        """'5' seeds, or '2 of 5' where three failed."""
        done, all_ = len(self.finished), len(self.seeds)
        return str(all_) if done == all_ else f"{done} of {all_}"

    @property
    def ensemble(self) -> float | None:
        """Of the seeds that finished, together."""
        return self.result.get(f"test_{self.metric}_ensemble")

    @property
    def validation(self) -> float | None:
        """On the validation images; of a sweep its winner's."""
        return self.result[f"val_{self.metric}"]
