"""How every figure looks, and how it becomes a file."""

import dataclasses
import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from vpt_jax.reports import result

# Told apart with any colour vision: the 'muted' scheme of Paul Tol, and a grey.
COLOURS = (
    *("#332288", "#cc6677", "#44aa99", "#ddcc77", "#882255", "#88ccee", "#117733"),
    *("#aa4499", "#999933", "#777777"),
)
MARKERS = ("o", "s", "^", "D")
INK = "#222222"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: Of its file.
        title: One line.
        png: The picture.
        width: Inches.
        detail: One of many alike, which the page folds away.
    """

    name: str
    title: str
    png: bytes
    width: float | int
    detail: bool = False


def colour(k: int) -> str:
    """Of the k-th thing that is shown."""
    return COLOURS[k % len(COLOURS)]


def canvas(width: float | int, height: float | int) -> Canvas:
    """An empty figure that makes room for its labels; sizes in inches."""
    return Canvas(figsize=(width, height), layout="constrained")


def finish(name: str, title: str, drawn: Canvas, detail: bool = False) -> Figure:
    """A figure of the report from what was drawn."""
    return Figure(name, title, png(drawn, title), drawn.get_figwidth(), detail)


def png(figure: Canvas, title: str) -> bytes:
    """The figure with its title as a picture."""
    figure.suptitle(title, fontsize=11, color=INK)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def plain(axis: Axes) -> None:
    """Two spines, a light grid behind."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=9)


def score_axis(axis: Axes, metric: str, of: str) -> None:
    """Name the vertical axis by its metric; of percents, end it at 0 and 100.

    Args:
        axis: With everything drawn.
        metric: Of the scores.
        of: Which scores, such as 'test'.
    """
    axis.set_ylabel(f"{of} {result.label(metric)}")
    if result.is_percent(metric):
        low, high = axis.get_ylim()
        axis.set_ylim(max(0, low), min(100, high))


def epoch_axis(axis: Axes) -> None:
    """Whole epochs along the bottom."""
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def file_name(*parts: str) -> str:
    """Letters, digits, dots and dashes of each, 'all' for none, joined by '_'."""
    return "_".join(
        "".join(c if c.isalnum() or c in "-." else "-" for c in part) or "all"
        for part in parts
    )
