"""What figures show: read back from what was drawn."""

import json

import numpy as np
import pytest
from matplotlib import image
from reports import fakes
from reports.fakes import write_result

from vpt_jax.reports import charts, figures
from vpt_jax.reports.collect import collect, comparisons


def comparison(folder):
    [found] = comparisons(collect(folder)[0])
    return found


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_bars_are_there_for_two_runs_and_sized_by_them(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 99.5)
    assert charts.task_bars(comparison(tmp_path)) is None
    write_result(tmp_path / "b", "full", "digits", 80.0, (1,))
    small = charts.task_bars(comparison(tmp_path))
    [axis] = small.axes
    assert sorted(bar.get_height() for bar in axis.patches) == [80.0, 99.5]
    assert axis.get_ylim() == (0, 100) and axis.get_ylabel() == "test top-1 [%]"
    assert legend(small) == ["full", "linear", "± deviation over seeds"]
    for task in ("cifar100", "dtd", "svhn", "pets", "sun397", "caltech101"):
        write_result(tmp_path / task, "full", task, 70.0)
    large = charts.task_bars(comparison(tmp_path))
    assert large.get_figwidth() > small.get_figwidth()
    assert legend(large)[2] == "the paper's"


def test_a_bar_of_fewer_seeds_is_marked(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", [90.0, None])
    write_result(tmp_path / "b", "full", "digits", 80.0, (1,))
    figure = charts.task_bars(comparison(tmp_path))
    hatched = {
        bar.get_height(): bool(bar.get_hatch()) for bar in figure.axes[0].patches
    }
    assert hatched == {90.0: True, 80.0: False}
    assert legend(figure)[-1] == "some seeds failed"


def test_parameters_are_drawn_for_two_methods_that_have_all_tasks(tmp_path):
    for method, top1 in (("full", 99.0), ("linear", 90.0)):
        more = {"tuned_percent": top1, "backbone": "vit_nano"}
        write_result(tmp_path / method, method, "pets", top1, **more)
    figure = charts.accuracy_against_parameters(comparison(tmp_path))
    points = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert points == [[[99.0, 99.0]], [[90.0, 90.0]]]
    assert legend(figure) == ["full", "linear", "± deviation over seeds"]
    bars = [line.get_segments()[0] for line in figure.axes[0].collections]
    assert [bar[:, 1].tolist() for bar in bars] == [[98.5, 99.5], [89.5, 90.5]]
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low < 90 and 99 < high <= 100
    # One of the same group, and two of no group: these are not averaged.
    write_result(tmp_path / "more", "full", "dtd", 50.0, backbone="vit_nano")
    assert charts.accuracy_against_parameters(comparison(tmp_path)) is None
    for method in ("full", "linear"):
        for task in ("digits", "procedural"):
            folder = tmp_path / method / task
            write_result(folder, method, task, 50.0, backbone="vit_nano")
    figure = charts.accuracy_against_parameters(comparison(tmp_path))
    assert [axis.get_title() for axis in figure.axes] == ["digits", "procedural"]


def test_the_papers_points_are_hollow(tmp_path):
    for method in ("full", "linear"):
        write_result(tmp_path / method, method, "cifar100", 70.0)
    figure = charts.accuracy_against_parameters(comparison(tmp_path))
    hollow = [x for x in figure.axes[0].lines if x.get_markerfacecolor() == "none"]
    assert [line.get_ydata().tolist() for line in hollow] == [[68.9], [63.4]]
    assert legend(figure)[2] == "hollow: the paper's"


@pytest.fixture
def variants(tmp_path):
    def write(labels, task="digits", top1=50.0):
        for k, (label, title) in enumerate(labels):
            chosen = fakes.SWEEP | {"variant": label, "ablation": title}
            chosen["variant_position"] = k
            folder = tmp_path / task / str(k)
            write_result(folder, "vpt-deep", task, top1 + k, sweep=chosen)
        return collect(tmp_path)[0]

    return write


def test_ablations_are_curves_or_bars(variants):
    lengths = [("deep = 1", "Length"), ("deep = 50", "Length")]
    found = variants([*lengths, ("CLS", "Pool"), ("all", "Pool")])
    curve, bars = (
        charts.ablation([run for run in found if run.ablation == title]).axes[0]
        for title in ("Length", "Pool")
    )
    assert curve.get_xlabel() == "Length" and curve.get_xscale() == "log"
    assert curve.lines[0].get_xydata().tolist() == [[1, 50], [50, 51]]
    assert [p.get_height() for p in bars.patches] == [52, 53]
    titles = [figure.title for figure in charts.of_ablations(found)]
    assert titles == ["Length, digits", "Pool, digits"]
    assert charts.of_ablations(found[:1]) == []  # nothing to compare


def test_an_ablation_over_a_group_is_drawn_as_its_mean(variants):
    lengths = [("P = 1", "Length"), ("P = 5", "Length")]
    for task, top1 in (("cifar100", 50.0), ("dtd", 70.0), ("dmlab", 10.0)):
        found = variants(lengths, task, top1)
    means = charts.group_means(found)
    assert [(run.task, run.variant, run.score) for run in means] == [
        ("natural, mean of 2", "P = 1", 60.0),
        ("natural, mean of 2", "P = 5", 61.0),
    ]
    assert charts.group_means(found[1:]) == []


def test_a_learning_curve(tmp_path):
    lines = [
        {
            "epoch": epoch,
            "trial": 0,
            "seed": 1,
            "train_loss": 1 / epoch,
            "train_miou": 100.0,
            "val_miou": 90.0 if epoch == 2 else None,
        }
        for epoch in (1, 2)
    ]
    loss, score = figures.curves(lines).axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5]]
    assert [line.get_ydata().tolist() for line in score.lines] == [[100, 100], [90]]
    assert score.get_ylim() == (0, 100)
    assert score.get_ylabel() == "training, validation mIoU [%]"
    names = [text.get_text() for text in score.get_legend().get_texts()]
    assert names == ["training", "validation"]
    for line in lines:
        line["val_miou"] = None
    _, score = figures.curves(lines).axes
    assert len(score.lines) == 1 and score.get_ylabel() == "training mIoU [%]"
    path = tmp_path / "new" / "learning_curve.png"
    figures.learning_curve(lines, "t", path)
    assert image.imread(path).std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_grid_shows_each_point_and_frames_the_winner(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 80.0, sweep=fakes.SWEEP)
    fakes.write_unit(tmp_path / "a", {1.0: 80.0, 9.0: None})
    [run] = collect(tmp_path)[0]
    records = figures.sweep_records(run.path)
    axis = figures.grid_map(records, run).axes[0]
    assert [text.get_text() for text in axis.texts] == ["80.0", "failed"]
    assert axis.patches[0].get_xy() == (-0.5, -0.5)
    training, validation, _ = figures.all_trials(
        figures.sweep_lines(run.path), run.metric
    ).axes
    assert len(training.lines) == 1  # the other's loss was never finite
    np.testing.assert_array_equal(validation.lines[0].get_xydata(), [[2, 80]])
    names = [figure.name for figure in figures.of_sweep(run)]
    assert names == [f"{x}_vit-b16_linear_all_digits" for x in ("grid", "trials")]
    trials = run.path / "units" / "00" / "0-000" / "trials.jsonl"
    trials.write_text(json.dumps(records[0]))  # a grid of one point is no picture
    assert [figure.name[:6] for figure in figures.of_sweep(run)] == ["trials"]


def test_titles_have_a_metric_s_own_name(tmp_path):
    parts = {"": 50.0, "_std": None, "_per_seed": [50.0] * 2, "_ensemble": None}
    miou = {f"test_miou{part}": value for part, value in parts.items()}
    miou |= {"metric": "miou", "val_miou": None}
    for method in ("full", "linear"):
        write_result(tmp_path / "pets" / method, method, "pets", 50.0)
        write_result(tmp_path / "scenes" / method, method, "scenes", 50.0, **miou)
    for task, name in (("pets", "Top-1"), ("scenes", "mIoU")):
        titles = [f.title for f in charts.of_comparison(comparison(tmp_path / task))]
        assert titles and all(title.startswith(f"{name} of ") for title in titles)
