"""Tables, tests and figures from results, and that wrong numbers would show."""

import csv
import html.parser
import json

import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from vpt_jax import data
from vpt_jax.errors import UserError
from vpt_jax.reports import figures, paper, report
from vpt_jax.reports.collect import collect, method_label
from vpt_jax.reports.statistics import compare
from vpt_jax.reports.tables import Table

OPTIONS = {
    "full": ("full", {"dropout": 0.1}),
    "linear": ("linear", {}),
    "vpt-deep": ("prompt", {"deep": True, "length": 10}),
}


def write_result(
    folder, method, task, top1, seeds=(42, 44), backbone="vit_b16", **more
):
    name, options = OPTIONS[method]
    result = {
        "task": task,
        "method": name,
        "method_options": options,
        "backbone": "vit_b16",
        "seed": list(seeds) if len(seeds) > 1 else seeds[0],
        "test_top1": top1,
        "test_top1_std": 0.5 if len(seeds) > 1 else None,
        "test_top1_per_seed": [top1] * len(seeds),
        "test_top1_ensemble": None,
        "val_top1": None,
        "n_test": 1000,
        "n_train": 1000,
        "trainable_params": 1_000_000,
        "backbone_params": 100_000_000,
        "tuned_percent": 1.0,
        "tuned_bytes": 4_000_000,
        "train_seconds": 12.0,
        "peak_memory_bytes": 2_000_000_000,
        "status": "ok",
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | more))


@pytest.fixture
def runs(tmp_path):
    """Three methods on the natural tasks, two points above the paper's figures."""
    for method in OPTIONS:
        for task in data.GROUPS["natural"]:
            top1 = paper.top1("vit_b16", method, task) + 2
            write_result(tmp_path / method / task, method, task, top1)
    return tmp_path


def table(folder, name):
    with open(folder / "report" / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_group_means_beside_the_papers(runs):
    report.write(runs)
    rows = {row["method"]: row for row in table(runs, "means_vit_b16")}
    assert rows["vpt-deep"] == {
        "method": "vpt-deep",
        "group": "natural",
        "tasks": "7 of 7",
        "ours": "80.49",  # the mean of the seven printed figures, 78.49, and 2
        "paper": "78.48",  # as printed
        "difference": "+2.01",
        "wins": "6 (6)",
    }
    assert (rows["full"]["wins"], rows["linear"]["wins"]) == ("-", "1 (1)")
    rows = {row["method"]: row for row in table(runs, "summary_vit_b16")}
    assert rows["vpt-deep"]["natural"] == "80.49 / 78.48"
    rows = {(r["method"], r["task"]): r for r in table(runs, "tasks_vit_b16")}
    row = rows["linear", "cifar100"]
    assert (row["ours"], row["paper"]) == ("65.40 ± 0.50", "63.4")
    assert (row["difference"], row["seeds"]) == ("+2.00", "2")
    costs = {row["method"]: row for row in table(runs, "costs_vit_b16")}
    assert (costs["linear"]["total"], costs["full"]["total"]) == ("1.070x", "0.070x")
    assert costs["linear"]["bytes per task"] == "4,000,000"


def test_an_incomplete_group_says_so(runs):
    (runs / "linear" / "svhn" / "result.json").unlink()
    report.write(runs)
    [row] = [r for r in table(runs, "means_vit_b16") if r["method"] == "linear"]
    published = [
        paper.top1("vit_b16", "linear", task)
        for task in data.GROUPS["natural"]
        if task != "svhn"
    ]
    assert row["tasks"] == "6 of 7"
    assert row["paper"] == f"{np.mean(published):.2f}"
    assert row["difference"] == "+2.00"
    [row] = [r for r in table(runs, "summary_vit_b16") if r["method"] == "linear"]
    assert row["natural"].endswith(" [6]")


def test_paired_tests_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 19))
    a, b = (dict(zip(map(str, range(19)), side, strict=True)) for side in (x, y))
    found = compare(a, b)
    assert found.t_test == stats.ttest_rel(x, y).pvalue
    assert found.wilcoxon == stats.wilcoxon(x, y).pvalue
    assert found.wins == (x > y).sum()
    assert found.difference == pytest.approx((x - y).mean())
    assert compare(a, {"other": 1.0}) is None
    alone = compare({"0": 2.0}, {"0": 1.0})
    assert (alone.tasks, alone.wins, alone.t_test, alone.wilcoxon) == (1, 1, None, None)
    assert compare({"0": 2.0, "1": 3.0}, {"0": 1.0, "1": 2.0}).t_test is None


def test_of_several_runs_the_sweep_counts(tmp_path):
    sweep = {
        "variant": "",
        "ablation": "",
        "label": "length=5",
        "base_lr": 1.0,
        "weight_decay": 0.0,
        "val_top1": 80.0,
        "ties": 2,
        "grid_trials": 2,
        "failed": 0,
        "grid_seconds": 5.0,
        "image_passes": 50,
        "full_image_passes": 100,
    }
    write_result(tmp_path / "a", "linear", "digits", 90.0)
    write_result(tmp_path / "b", "linear", "digits", 80.0, (1,), sweep=sweep)
    (tmp_path / "b" / "plan.json").write_text("{}")
    write_result(tmp_path / "b" / "final", "linear", "digits", 10.0)
    write_result(tmp_path / "c", "vpt-deep", "digits", None)
    found, left_out = collect(tmp_path)
    assert [(run.path.name, run.top1) for run in found] == [("b", 80.0)]
    assert [line.split(":")[0][-1] for line in left_out] == ["a", "c"]
    unit = tmp_path / "b" / "units" / "00" / "0-000"
    unit.mkdir(parents=True)
    records = [
        {
            "unit": "00",
            "label": "length=5",
            "position": k,
            "lr": rate / 4,
            "base_lr": rate,
            "weight_decay": 0.0,
            "epochs": 2,
            "val_top1": score,
            "status": "ok" if score else "failed: the loss was not finite",
        }
        for k, (rate, score) in enumerate([(1.0, 80.0), (9.0, None)])
    ]
    (unit / "trials.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = [
        {
            "epoch": epoch,
            "trial": trial,
            "lr": 0.25,
            "train_loss": None if trial else 1.0,
            "train_top1": 50.0,
            "val_top1": 80.0 if epoch == 2 else None,
        }
        for epoch in (1, 2)
        for trial in (0, 1)
    ]
    (unit / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pages = report.write(tmp_path)
    [row] = table(tmp_path, "chosen")
    assert (row["variant"], row["base lr"], row["saved"]) == ("length=5", "1", "50 %")
    names = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {
        "grid_vit-b16_linear_all_digits.png",
        "trials_vit-b16_linear_all_digits.png",
    } <= names
    assert "is used instead" in pages[0].read_text()


def test_the_page_needs_no_other_file(runs):
    class Reader(html.parser.HTMLParser):
        tables, images, links = 0, 0, 0

        def handle_starttag(self, tag, attributes):
            self.tables += tag == "table"
            if tag == "img":
                assert dict(attributes)["src"].startswith("data:image/png;base64,")
                self.images += 1
            self.links += tag in ("link", "script")

    [_, page] = report.write(runs)
    reader = Reader()
    reader.feed(page.read_text())
    assert (reader.tables, reader.images, reader.links) == (5, 2, 0)
    text = (runs / "report" / "report.md").read_text()
    for name in ("parameters_vit_b16", "tasks_vit_b16"):
        assert f"(figures/{name}.png)" in text
        pixels = image.imread(runs / "report" / "figures" / f"{name}.png")
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.05


def test_the_four_forms_of_a_table():
    one = Table("t", "A & B", "50 % <off>", ("a|b", "n_1"), (("x ± 1", "−2"),))
    assert "| a\\|b | n_1 |\n| --- | ---: |\n| x ± 1 | −2 |" in one.markdown()
    assert one.csv() == "a|b,n_1\nx ± 1,−2\n"
    latex = one.latex()
    assert r"\caption{A \& B. 50 \% <off>}" in latex
    assert "a|b & n\\_1 \\\\" in latex and r"x $\pm$ 1 & $-$2 \\" in latex
    assert "50 % &lt;off&gt;" in one.html() and '<td class="n">−2</td>' in one.html()


def test_ablations_are_curves_or_bars(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda f, *_: drawn.append(f))
    for k, (label, title) in enumerate(
        [
            ("deep = 1", "Length"),
            ("deep = 50", "Length"),
            ("CLS", "Pool"),
            ("all", "Pool"),
        ]
    ):
        chosen = {"variant": label, "variant_position": k, "ablation": title}
        chosen["label"] = ""
        write_result(tmp_path / str(k), "vpt-deep", "digits", 50.0 + k, sweep=chosen)
    found, _ = collect(tmp_path)
    for title in ("Length", "Pool"):
        own = [r for r in found if r.result["sweep"]["ablation"] == title]
        figures.ablation(own, title, tmp_path / "x.png")
    curve, bars = (figure.axes[0] for figure in drawn)
    assert curve.get_xlabel() == "Length" and curve.get_xscale() == "log"
    assert curve.lines[0].get_xydata().tolist() == [[1, 50], [50, 51]]
    assert [p.get_height() for p in bars.patches] == [52, 53]
    rows = report.ablations(found).rows
    assert [row[0] for row in rows] == ["deep = 1", "deep = 50", "CLS", "all"]


def test_an_ablation_over_a_group_is_drawn_as_its_mean(tmp_path):
    for task, top1 in (("cifar100", 50.0), ("dtd", 70.0), ("dmlab", 10.0)):
        for k, label in enumerate(("P = 1", "P = 5")):
            chosen = {"variant": label, "variant_position": k, "ablation": "Length"}
            folder = tmp_path / task / str(k)
            write_result(folder, "vpt-deep", task, top1 + k, sweep=chosen)
    found, _ = collect(tmp_path)
    means = figures.group_means(found)
    assert [(run.task, run.variant, run.top1) for run in means] == [
        ("natural, mean of 2", "P = 1", 60.0),
        ("natural, mean of 2", "P = 5", 61.0),
    ]
    assert figures.group_means(found[1:]) == []


def test_what_the_paper_says():
    assert paper.top1("vit_b16", "vpt-deep", "cifar100") == 78.8
    assert paper.top1("vit_b16", "vpt-deep", "structured") == 54.98
    assert paper.top1("vit_nano", "vpt-deep", "cifar100") is None
    assert paper.source("vit_b16", "full", "cub") == "VFPT+HTA+SNELL+SYN"
    assert paper.ratios("vit_b16")["vpt-deep"] == 1.18
    for backbone in paper.BACKBONES:
        assert "full" in paper.methods(backbone), backbone
    # ---- the printed means are those of the printed figures, to their rounding
    for method in ("full", "linear", "vpt-deep"):
        for group in ("natural", "specialized", "structured"):
            each = [paper.top1("vit_b16", method, t) for t in data.GROUPS[group]]
            assert abs(np.mean(each) - paper.top1("vit_b16", method, group)) < 0.1


def test_names_of_methods():
    assert method_label("prompt", {"deep": False}) == "vpt-shallow"
    assert method_label("mlp", {"mlp_layers": 3}) == "mlp-3"
    assert method_label("prompt+bias", {"deep": True}) == "vpt-deep+bias"
    assert method_label("adapter", {"reduction": 8}) == "adapter-8"


def test_nothing_to_report(command, tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        report.write(tmp_path)
    code, out, err = command("--mode=report", "--workdir", tmp_path)
    assert (code, out) == (2, "") and "no finished run" in err
