"""Which tables and figures a report has, and that wrong numbers would show."""

import csv
import html.parser
import re

import numpy as np
import pytest
from matplotlib import image
from reports import fakes
from reports.fakes import write_result

from vpt_jax import data
from vpt_jax.errors import UserError
from vpt_jax.reports import paper, report
from vpt_jax.reports.collect import collect
from vpt_jax.reports.figures import name_of
from vpt_jax.reports.table import Column, Table, build


@pytest.fixture
def runs(tmp_path):
    """Three methods on the natural tasks, two points above the paper's figures."""
    for method in fakes.OPTIONS:
        for task in data.GROUPS["natural"]:
            top1 = paper.score("vit_b16", method, task, "top1") + 2
            write_result(tmp_path / method / task, method, task, top1)
    return tmp_path


def table(folder, name):
    with open(folder / "report" / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Names of the tables, and of the figures."""
    files = [path for path in (folder / "report").rglob("*") if path.is_file()]
    return [{p.stem for p in files if p.suffix == end} for end in (".csv", ".png")]


def test_group_means_beside_the_papers(runs):
    report.write(runs)
    rows = {row["method"]: row for row in table(runs, "summary_vit_b16")}
    assert rows["vpt-deep"] == {
        "method": "vpt-deep",
        "natural": "80.49 (6)",  # the mean of the seven printed, 78.49, and 2
        "paper": "78.48 (6)",  # as printed
        "difference": "+2.01",
    }
    assert (rows["full"]["natural"], rows["linear"]["paper"]) == ("77.89", "68.93 (1)")
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
    [row] = [r for r in table(runs, "summary_vit_b16") if r["method"] == "linear"]
    published = [
        paper.score("vit_b16", "linear", task, "top1")
        for task in data.GROUPS["natural"]
        if task != "svhn"
    ]
    assert row["natural"].endswith(" [6 of 7]")
    assert row["paper"].startswith(f"{np.mean(published):.2f} ")
    assert row["difference"] == "+2.00"


def test_several_groups_have_a_column_each(runs):
    for task in data.GROUPS["specialized"]:
        write_result(runs / "more" / task, "linear", task, 50.0)
    report.write(runs)
    rows = {(r["method"], r["mean"]): r for r in table(runs, "summary_vit_b16")}
    printed = [
        paper.score("vit_b16", "linear", task, "top1")
        for group in ("natural", "specialized")
        for task in data.GROUPS[group]
    ]
    assert rows["linear", "paper"]["VTAB"].startswith(f"{np.mean(printed):.2f}")
    assert rows["linear", "ours"]["specialized"] == "50.00"
    assert rows["linear", "ours"]["VTAB"].endswith(" [11 of 19]")
    assert rows["full", "ours"]["specialized"] == "-"
    assert rows["full", "ours"]["VTAB"] == "-"  # a mean of one group says it already


def test_a_single_run_is_one_table(tmp_path):
    write_result(tmp_path / "a", "vpt-deep", "cifar100", 80.0, (42,))
    report.write(tmp_path)
    assert contents(tmp_path) == [{"tasks_vit_b16"}, set()]
    [row] = table(tmp_path, "tasks_vit_b16")
    assert row == {
        "method": "vpt-deep",
        "task": "cifar100",
        "ours": "80.00",
        "seeds": "1",
        "paper": "78.8",
        "difference": "+1.20",
        "test images": "1,000",
        "tuned parameters": "1,000,000",
        "tuned [%]": "1.000",
        "train [s]": "12.0",
        "peak memory [GB]": "2.00",
        "source": "VFPT+HTA+SYN+HYP+N1",
    }


def test_a_column_that_says_nothing_is_left_out(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 80.0, (42,))
    [markdown, _] = report.write(tmp_path)
    assert not {"paper", "source", "val"} & table(tmp_path, "tasks_vit_b16")[0].keys()
    assert "paper" not in markdown.read_text()  # nor does the note speak of it


def test_figures_and_tables_need_something_to_compare(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", 80.0)
    write_result(tmp_path / "b", "vpt-deep", "digits", 90.0)
    report.write(tmp_path)
    assert contents(tmp_path) == [
        # The seeds are equal: nothing for a test.
        {"tasks_vit_b16", "order_vit_b16", "runs"},
        {"parameters_vit_b16", "tasks_vit_b16"},
    ]
    write_result(tmp_path / "c", "linear", "dtd", 80.0)
    write_result(tmp_path / "d", "linear", "pets", [79.0, 80.0])
    report.write(tmp_path)
    assert contents(tmp_path)[0] == {
        *("tasks_vit_b16", "costs_vit_b16", "summary_vit_b16"),
        *("scores_vit_b16", "order_vit_b16", "runs"),
    }
    rows = {row["method"]: row for row in table(tmp_path, "scores_vit_b16")}
    assert rows["linear"]["pets"] == "79.50 ± 0.50"
    assert (rows["vpt-deep"]["pets"], rows["linear"]["tuned [%]"]) == ("-", "1.000")
    write_result(tmp_path / "e", "vpt-deep", "pets", [89.0, 90.0])
    write_result(tmp_path / "f", "vpt-deep", "dtd", 82.0)
    report.write(tmp_path)
    assert contents(tmp_path)[0] >= {"tests_vit_b16", "welch_vit_b16"}


def test_failed_seeds_are_counted_and_named(tmp_path):
    some = [90.5, None, None, 89.5, None]
    for name, task in (("a", "dtd"), ("b", "pets")):
        write_result(tmp_path / name, "linear", task, 80.0, (1, 2, 3, 4, 5))
        more = {"test_top1_ensemble": 91.0} if task == "dtd" else {}
        scores = some if task == "dtd" else 70.0
        folder = tmp_path / f"deep_{name}"
        write_result(folder, "vpt-deep", task, scores, (1, 2, 3, 4, 5), **more)
    pages = report.write(tmp_path)
    rows = {(r["method"], r["task"]): r for r in table(tmp_path, "tasks_vit_b16")}
    row = rows["vpt-deep", "dtd"]
    assert (row["seeds"], row["ours"]) == ("2 of 5", "90.00 ± 0.50*")
    assert rows["vpt-deep", "pets"]["seeds"] == "5"
    [row] = table(tmp_path, "ensembles")
    assert (row["seeds"], row["best"], row["gain"]) == ("2 of 5", "90.50", "+1.00")
    rows = {row["method"]: row for row in table(tmp_path, "summary_vit_b16")}
    assert rows["vpt-deep"]["natural"] == "80.00* [2 of 7]"
    assert rows["linear"]["natural"] == "80.00 [2 of 7]"
    line = "vpt-deep on dtd, vit_b16: 2 of 5 seeds finished, without 2, 3, 5 (failed: "
    for page in pages:
        assert line in page.read_text()
        assert page.read_text().count("*: without the seeds that failed") == 4


def test_of_one_seed_that_is_left_there_is_no_deviation(tmp_path):
    write_result(tmp_path / "a", "linear", "digits", [90.0, None])
    report.write(tmp_path)
    [row] = table(tmp_path, "tasks_vit_b16")
    assert (row["ours"], row["seeds"]) == ("90.00*", "1 of 2")


def test_the_tests_of_the_paper_stand_beside_ours(tmp_path):
    """On the published figures; where all 19 agree in sign, p is 2^-19."""
    for method in ("full", "linear", "vpt-deep"):
        for task in data.GROUPS["all"]:
            top1 = paper.score("vit_b16", method, task, "top1")
            write_result(tmp_path / method / task, method, task, [top1, top1 + 0.01])
    write_result(tmp_path / "cub", "vpt-deep", "cub", 0.0)  # not one of the 19
    write_result(tmp_path / "full_cub", "full", "cub", 90.0)
    report.write(tmp_path)
    rows = {row["methods"]: row for row in table(tmp_path, "tests_vit_b16")}
    row = rows["vpt-deep - linear"]
    assert (row["tasks"], row["wins"]) == ("19", "17")
    assert row["Wilcoxon one-sided (as in the paper)"] == "4.8e-05"
    assert row["paper's"] == "2.7e-05"
    assert rows["vpt-deep - full"]["tasks"] == "19"
    assert rows["linear - full"]["paper's"] == "-"
    rows = {row["methods"]: row for row in table(tmp_path, "welch_vit_b16")}
    row = rows["vpt-deep - full"]
    wins = [
        paper.score("vit_b16", "vpt-deep", task, "top1")
        > paper.score("vit_b16", "full", task, "top1")
        for task in data.GROUPS["all"]
    ]
    assert (row["better"], row["worse"]) == (str(sum(wins)), str(19 - sum(wins)))
    assert row["paper's better"] == "11 of 19"
    assert rows["vpt-deep - linear"]["paper's better"] == ""


def test_of_a_part_of_vtab_other_tasks_are_tested_too(tmp_path):
    for method, top1 in (("linear", 80.0), ("vpt-deep", 90.0)):
        for task in ("dtd", "folder:cats"):
            folder = tmp_path / f"{method}-{task[:3]}"
            write_result(folder, method, task, [top1, top1 + 1])
    report.write(tmp_path)
    [row] = table(tmp_path, "welch_vit_b16")
    assert row["better on"] == "dtd, folder:cats"
    assert [row["tasks"] for row in table(tmp_path, "tests_vit_b16")] == ["2"]


def test_of_many_methods_vpt_deep_is_tested_against_each(tmp_path, monkeypatch):
    def pairs(*methods):
        for method in methods:
            write_result(tmp_path / method, method, "dtd", [80.0, 81.0])
        report.write(tmp_path)
        return {row["methods"] for row in table(tmp_path, "welch_vit_b16")}

    assert len(pairs("full", "linear", "vpt-deep")) == 3  # of few every pair
    others = ("bias", "layernorm", "ssf")
    for method in others:
        monkeypatch.setitem(fakes.OPTIONS, method, (method, {}))
    assert pairs(*others) == {f"vpt-deep - {m}" for m in ("full", "linear", *others)}


def test_other_metrics_are_compared_among_themselves(tmp_path):
    """A lower-is-better error beside top-1 of the same tasks and methods."""
    write_result(tmp_path / "a", "full", "pets", 90.0)
    for name, method, error in (("b", "full", 0.25), ("c", "linear", 0.125)):
        own = {
            "metric": "error",
            "higher_is_better": False,
            "test_error": error,
            "test_error_std": 0.01,
            "test_error_per_seed": [error - 0.01, error + 0.01],
            "test_error_ensemble": error,
            "val_error": 0.5,
        }
        for task in ("pets", "dtd"):
            folder = tmp_path / name / task
            write_result(folder, method, task, None, **own)
    report.write(tmp_path)
    assert [row["ours"] for row in table(tmp_path, "tasks_vit_b16")] == ["90.00 ± 0.50"]
    rows = table(tmp_path, "tasks_vit_b16_error")
    assert [row["ours"] for row in rows[:2]] == ["0.2500 ± 0.0100"] * 2
    assert "paper" not in rows[0]  # whose figures are of another metric
    rows = {row["method"]: row for row in table(tmp_path, "summary_vit_b16_error")}
    assert rows["linear"]["natural"] == "0.1250 (2) [2 of 7]"
    [row] = table(tmp_path, "welch_vit_b16_error")
    assert (row["methods"], row["better"]) == ("linear - full", "2")
    assert table(tmp_path, "ensembles_error")[0]["best"] == "0.2400"
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Test error after" in text and "Error of vit_b16 on each task" in text


def test_what_a_sweep_chose(tmp_path):
    chosen = fakes.SWEEP | {"label": "length=5", "ties": 2}
    write_result(tmp_path / "b", "linear", "digits", 80.0, (1,), sweep=chosen)
    fakes.write_unit(tmp_path / "b", {1.0: 80.0, 9.0: None})
    report.write(tmp_path)
    [row] = table(tmp_path, "chosen")
    assert (row["variant"], row["base lr"], row["saved"]) == ("length=5", "1", "50 %")
    assert row["edge"] == "lowest"  # of 1 and 9
    # The grid of length=5 was not found, its trials were.
    assert contents(tmp_path)[1] == {"trials_vit-b16_linear_all_digits"}


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
    # Summary, scores, order, tasks, costs, runs, tests over tasks; of equal seeds none.
    assert (reader.tables, reader.images, reader.links) == (7, 2, 0)
    text = (runs / "report" / "report.md").read_text()
    for name in ("parameters_vit_b16", "tasks_vit_b16"):
        assert f"(figures/{name}.png)" in text
        pixels = image.imread(runs / "report" / "figures" / f"{name}.png")
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.05


def test_a_page_with_its_figures_beside_it(runs, command):
    chosen = fakes.SWEEP
    write_result(runs / "s", "linear", "digits", 80.0, (1,), sweep=chosen)
    fakes.write_unit(runs / "s", {1.0: 80.0, 9.0: 70.0})
    page = runs / "docs" / "results.md"
    arguments = "--mode=report", f"--workdir={runs}", f"--output={page}"
    for _ in range(2):  # what a report wrote, the next one replaces
        code, out, _ = command(*arguments)
        assert code == 0 and str(page) in out
    figures = re.findall(r"!\[.*\]\((results/figures/.*\.png)\)", page.read_text())
    found = sorted((runs / "docs" / "results" / "figures").iterdir())
    assert sorted(page.parent / name for name in figures) == found
    # The trials of single sweeps are left to the report.
    assert [path.stem for path in found] == ["parameters_vit_b16", "tasks_vit_b16"]
    assert "trials_vit-b16_linear_all_digits" in contents(runs)[1]
    assert "## Scores, vit_b16" in page.read_text()


def test_a_page_replaces_no_other_file(runs):
    other = runs / "notes.md"
    other.write_text("mine")
    with pytest.raises(UserError, match="notes.md is a file that no report wrote"):
        report.write(runs, page=other)
    assert other.read_text() == "mine" and not (runs / "report").exists()
    with pytest.raises(UserError, match="must end in .md"):
        report.write(runs, page=runs / "results.html")


def test_the_four_forms_of_a_table():
    one = Table("t", "A & B", "50 % <off>", ("a|b", "n_1"), (("x ± 1", "−2"),))
    assert "| a\\|b | n_1 |\n| --- | ---: |\n| x ± 1 | −2 |" in one.markdown()
    assert one.csv() == "a|b,n_1\nx ± 1,−2\n"
    latex = one.latex()
    assert r"\caption{A \& B. 50 \% <off>}" in latex
    assert "a|b & n\\_1 \\\\" in latex and r"x $\pm$ 1 & $-$2 \\" in latex
    assert "50 % &lt;off&gt;" in one.html() and '<td class="n">−2</td>' in one.html()


def test_a_long_table_is_folded_away_on_the_page():
    few, many = (
        build("t", "T", [Column[int]("n", str)], range(rows)).html()
        for rows in (40, 41)
    )
    assert "<details>" not in few and "<summary>41 rows</summary>" in many


def test_ablations_and_their_table(tmp_path):
    for k, label in enumerate(("P = 1", "P = 5")):
        chosen = fakes.SWEEP | {
            "variant": label,
            "variant_position": k,
            "ablation": "Length",
        }
        folder = tmp_path / str(k)
        write_result(folder, "vpt-deep", "digits", [50.0 + k, None], sweep=chosen)
    report.write(tmp_path)
    rows = table(tmp_path, "ablations")
    assert [row["variant"] for row in rows] == ["P = 1", "P = 5"]
    assert (rows[1]["test top-1 [%]"], rows[1]["seeds"]) == ("51.00*", "1 of 2")
    assert contents(tmp_path) == [
        {"ablations", "chosen", "runs"},
        {"ablation_Length_digits"},
    ]


def test_ablations_stay_apart_and_behind_the_methods(tmp_path):
    """Two may have the same variant."""
    write_result(tmp_path / "one", "vpt-deep", "digits", [60.0, 60.5])
    for title in ("Sharing", "Learning"):
        for k, label in enumerate(("P = 10", "P = 1")):
            chosen = {"variant": label, "variant_position": k, "ablation": title}
            folder = tmp_path / f"{title}{k}"
            sweep = fakes.SWEEP | chosen
            write_result(folder, "full", "digits", [50.0, 52.0], sweep=sweep)
    report.write(tmp_path)
    rows = [f"{r['ablation']} {r['variant']}" for r in table(tmp_path, "ablations")]
    learning = ["Learning P = 10", "Learning P = 1"]
    assert rows == [*learning, "Sharing P = 10", "Sharing P = 1"]
    assert table(tmp_path, "runs")[0]["method"] == "vpt-deep"
    assert len(set(map(name_of, collect(tmp_path)[0]))) == 5
    figures = {"ablation_Learning_digits", "ablation_Sharing_digits"}
    assert contents(tmp_path)[1] == figures


def test_what_the_paper_says():
    score = paper.score
    assert score("vit_b16", "vpt-deep", "cifar100", "top1") == 78.8
    assert score("vit_b16", "vpt-deep", "structured", "top1") == 54.98
    assert score("vit_nano", "vpt-deep", "cifar100", "top1") is None
    assert score("vit_b16", "vpt-deep", "cifar100", "miou") is None
    assert paper.source("vit_b16", "full", "cub") == "VFPT+HTA+SNELL+SYN"
    assert paper.ratios("vit_b16")["vpt-deep"] == 1.18
    assert paper.tests("vit_b16", "vpt-deep", "bias", "top1").wilcoxon == 1.9e-6
    assert paper.tests("vit_b16", "bias", "vpt-deep", "top1") is None
    for backbone in paper.BACKBONES:
        assert "full" in paper.methods(backbone), backbone
    # ---- the printed means are those of the printed figures, to their rounding
    for method in ("full", "linear", "vpt-deep"):
        for group in ("natural", "specialized", "structured"):
            tasks = data.GROUPS[group]
            each = [score("vit_b16", method, task, "top1") for task in tasks]
            assert abs(np.mean(each) - score("vit_b16", method, group, "top1")) < 0.1


def test_nothing_to_report(command, tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        report.write(tmp_path)
    code, out, err = command("--mode=report", "--workdir", tmp_path)
    assert (code, out) == (2, "") and "no finished run" in err
