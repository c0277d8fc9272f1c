"""What is said of the paper's order is what the scores say."""

import pytest
from reports.fakes import write_result

from vpt_jax.reports import order, paper
from vpt_jax.reports.collect import collect, comparisons


@pytest.fixture
def orders(tmp_path):
    """Makes runs of methods on a task; returns the order of each panel."""

    def find(task, scores, **more):
        for method, top1 in scores.items():
            write_result(tmp_path / method, method, task, top1, **more)
        [comparison] = comparisons(collect(tmp_path)[0])
        panels = comparison.panels.items()
        return comparison, [order.find(place, methods) for place, methods in panels]

    return find


def test_pairs_as_in_the_paper_the_other_way_round_and_too_close(orders):
    """Natural tasks in the paper: vpt-deep 78.5, full 75.9, linear 68.9."""
    top1 = {"linear": [50.0, 51.0], "full": [80.0, 81.0], "vpt-deep": [79.0, 81.5]}
    comparison, [found] = orders("cifar100", top1)
    assert found.here == ("full", "vpt-deep", "linear")
    assert found.papers == ("vpt-deep", "full", "linear")
    assert (found.place, found.of) == ("cifar100", "VTAB-Natural, ViT-B/16 sup IN-21k")
    assert found.alike == (("vpt-deep", "linear"), ("full", "linear"))
    assert (found.reverse, found.close) == ((), (("vpt-deep", "full"),))
    table = order.beside_the_papers(comparison)
    assert "too: 3. In the paper's order: 2; the other way round: 0; too" in table.note

    top1["vpt-deep"] = [40.0, 41.0]
    for method in top1:
        (folder,) = [run.path for run in comparison.runs if run.method == method]
        (folder / "result.json").unlink()
        folder.rmdir()
    comparison, [found] = orders("cifar100", top1)
    assert found.reverse == (("vpt-deep", "full"), ("vpt-deep", "linear"))
    table = order.beside_the_papers(comparison)
    assert table.rows[0][-1] == "full before vpt-deep; linear before vpt-deep"


def test_of_single_seeds_the_scores_alone(orders):
    """A task and a backbone that the paper has not."""
    scores = {"linear": [50.0], "full": [50.1]}
    more = {"seeds": (1,), "backbone": "vit_nano"}
    _, [found] = orders("folder:/x/cats", scores, **more)
    assert found.of == "VTAB-1k, ViT-B/16 sup IN-21k" and found.place == "folder:cats"
    assert found.alike == (("full", "linear"),)


def test_nothing_to_compare_with(orders):
    scores = {"linear": [50.0], "full": [50.1]}
    error = {"metric": "error", "test_error": 1.0, "val_error": 1.0}
    error |= {"test_error_std": None, "test_error_per_seed": [1.0]}
    comparison, _ = orders("dtd", scores, seeds=(1,), **error)
    assert order.beside_the_papers(comparison) is None


def test_published_means_over_groups():
    """vpt-deep over VTAB: its printed group means by 7, 4 and 8 tasks."""
    parts = "natural", "specialized", "structured"
    printed = [paper.score("vit_b16", "vpt-deep", part, "top1") for part in parts]
    [n, s, t] = printed
    found = paper.of_groups("vit_b16", "vpt-deep", parts, "top1")
    assert found == pytest.approx((7 * n + 4 * s + 8 * t) / 19)
    # Of one reduction the tasks were printed, and no means.
    assert paper.score("vit_b16", "adapter-8", "natural", "top1") is None
    assert paper.of_groups("vit_b16", "adapter-8", ("natural",), "top1") is not None
    assert paper.of_groups("vit_b16", "lora-8", parts, "top1") is None
