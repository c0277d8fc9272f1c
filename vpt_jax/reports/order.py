"""Whether the methods come in the paper's order: said from the scores, not by hand."""

import dataclasses
import itertools

import numpy as np

from vpt_jax.reports import paper, result
from vpt_jax.reports.collect import Comparison, Run
from vpt_jax.reports.statistics import LEVEL, welch
from vpt_jax.reports.table import Column, Table, build
from vpt_jax.reports.tables import VTAB, mean

_REFERENCE = "vit_b16"  # where the paper has nothing of a backbone


@dataclasses.dataclass(frozen=True)
class Order:
    """The order of the methods on a task or over a group of them.

    Attributes:
        place: The task or group.
        here: All methods, best first.
        papers: Those that the paper has too, its best first.
        of: What the paper's order is over.
        alike, reverse, close: Pairs of these, the paper's better one first: in the
            paper's order, the other way round, and too close to say.
    """

    place: str
    here: tuple[str, ...]
    papers: tuple[str, ...]
    of: str
    alike: tuple[tuple[str, str], ...]
    reverse: tuple[tuple[str, str], ...]
    close: tuple[tuple[str, str], ...]

    @property
    def pairs(self) -> int:
        """How many were compared."""
        return len(self.alike) + len(self.reverse) + len(self.close)


def beside_the_papers(comparison: Comparison) -> Table | None:
    """A row for each group or task; None where the paper has no two of the methods."""
    orders = [find(place, found) for place, found in comparison.panels.items()]
    orders = [order for order in orders if order.pairs]
    if not orders:
        return None
    Row = Column[Order]
    columns = [
        Row("tasks", lambda order: order.place, left=True),
        Row("here, best first", lambda order: ", ".join(order.here), left=True),
        Row("the paper's order", lambda order: ", ".join(order.papers), left=True),
        Row("of", lambda order: order.of, left=True),
        Row("pairs", lambda order: str(order.pairs)),
        Row("as in the paper", lambda order: str(len(order.alike))),
        Row("too close", lambda order: str(len(order.close))),
        Row("the other way round", lambda order: _named(order.reverse), left=True),
    ]
    title = f"Order of the methods, {comparison.backbone}"
    name = f"order_{comparison.place}"
    return build(name, title, columns, orders, _in_words(orders, comparison.metric))


def find(place: str, methods: dict[str, list[Run]]) -> Order:
    """The order of methods that all have the same tasks."""
    run = next(iter(methods.values()))[0]
    backbone = run.backbone if run.backbone in paper.BACKBONES else _REFERENCE
    groups = (run.group,) if run.group in paper.GROUPS else VTAB
    known = {m: paper.of_groups(backbone, m, groups, run.metric) for m in methods}
    published = {m: score for m, score in known.items() if score is not None}
    papers = sorted(published, key=lambda m: -published[m])
    verdicts: dict[int, list[tuple[str, str]]] = {1: [], -1: [], 0: []}
    for a, b in itertools.combinations(papers, 2):
        if published[a] > published[b]:
            verdicts[better(methods[a], methods[b])].append((a, b))
    suite = "VTAB-1k" if len(groups) > 1 else paper.GROUPS[groups[0]]
    return Order(
        place,
        tuple(sorted(methods, key=lambda m: -run.sign * mean(methods[m]))),
        tuple(papers),
        f"{suite}, {paper.BACKBONES[backbone]}",
        *(tuple(verdicts[verdict]) for verdict in (1, -1, 0)),
    )


def better(a: list[Run], b: list[Run]) -> int:
    """1 where runs A are better than runs B of the same tasks, -1 where worse, else 0.

    Where both have two seeds or more, Welch's t-test over the seeds' means must agree.
    """
    sign = a[0].sign
    p = welch(_of_seeds(a), _of_seeds(b), sign)
    if p is not None:
        return (p[0] < LEVEL) - (p[1] < LEVEL)
    return int(np.sign(sign * (mean(a) - mean(b))))


def _of_seeds(runs: list[Run]) -> list[float]:
    """The mean over tasks, seed by seed; none where a task has fewer seeds."""
    each = [run.finished for run in runs]
    alike = len({len(scores) for scores in each}) == 1
    return np.mean(each, axis=0).tolist() if alike else []


def _named(pairs: tuple[tuple[str, str], ...]) -> str:
    return "; ".join(f"{b} before {a}" for a, b in pairs) or "none"


def _in_words(orders: list[Order], metric: str) -> str:
    """What the table comes to."""

    def count(pairs: str) -> int:
        return sum(len(getattr(order, pairs)) for order in orders)

    return (
        f"Pairs of methods that the paper has too: {sum(o.pairs for o in orders)}. "
        f"In the paper's order: {count('alike')}; "
        f"the other way round: {count('reverse')}; too close to say: {count('close')} "
        f"(Welch's t-test over seeds, one-sided, p < {LEVEL}; of single seeds the "
        f"scores alone). By test {result.label(metric)}. A task that the paper has not "
        "stands beside its mean over VTAB-1k, a backbone beside its ViT-B/16."
    )
