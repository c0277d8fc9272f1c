"""Settings that sweeps found, taken up by another run."""

import dataclasses

import pytest

from vpt_jax import tuned
from vpt_jax.config import base
from vpt_jax.errors import UserError
from vpt_jax.resolution import resolve

ROW = tuned.Row(
    *("digits", "vpt-deep", "vit_nano", 32, "sgd", 0.5, 0.01, "fitted"),
    options="deep=True dropout=0.0 init=normal length=3",
    **{"epochs": 30, "batch_size": 128, "metric": "top1", "val": 90.5},
    source="6 trials in runs/digits",
)


@pytest.fixture
def file(tmp_path):
    """A table of two image sizes, another task and another backbone."""
    path = tmp_path / "tuned.csv"
    others = (
        dataclasses.replace(ROW, image_size=16, base_lr=9.0),
        dataclasses.replace(ROW, task="folder:cats", method="adapter", options=""),
        dataclasses.replace(ROW, task="dtd", backbone="vit_b16"),
    )
    path.write_text(tuned.text([*others, ROW]))
    return path


def test_a_table_is_sorted_and_has_a_row_for_each_place(file):
    rows = tuned.read(file)
    assert len(rows) == 4 and rows == sorted(rows) and ROW in rows
    newer = dataclasses.replace(ROW, base_lr=2.0)
    file.write_text(tuned.text([*rows, newer]))
    assert tuned.read(file) == [newer if row == ROW else row for row in rows]


def test_a_run_takes_them_up(file):
    config = base("digits", "vpt_deep", "vit_nano", str(file))
    config.batch_size = 64
    run = resolve(config)
    # Of two image sizes that nearest to the backbone's own; scaled by this batch.
    assert (run.optimizer.lr, run.optimizer.weight_decay) == (0.125, 0.01)
    assert run.optimizer.head_start == "fitted"
    [choice] = run.network.method
    found = choice.config
    assert (found.length, found.dropout, found.init, found.deep) == (
        *(3, 0.0, "normal"),
        True,
    )
    config.method.length = 7  # what is given besides, counts
    assert resolve(config).network.method[0].config.length == 7
    # A folder by its own name, a reduction that was chosen with the rest by none.
    assert base("folder:/x/cats", "adapter", "vit_nano", str(file)).optim.base_lr == 0.5


def test_a_missing_row_says_which_there_are(file):
    with pytest.raises(UserError) as error:
        base("digits", "linear", "vit_b16", str(file))
    assert str(error.value) == (
        "tuned.csv has no row for linear on digits with vit_b16; of this task or "
        "backbone it has digits,vpt-deep,vit_nano (16 px); digits,vpt-deep,vit_nano "
        "(32 px); dtd,vpt-deep,vit_b16 (32 px)"
    )
    with pytest.raises(UserError, match="or backbone it has none"):
        base("svhn", "linear", "vit_l16", str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no table of tuned settings, whose header is task,method"),
        ("a,b\n1,2\n", "is no table of tuned settings"),
        ("{header}\n1,2\n", "line 2: "),
        ("{header}\n{row}", "line 2: could not convert string to float: 'high'"),
        (None, "cannot be read as a table"),
    ],
)
def test_what_is_no_table(tmp_path, content, message):
    path = tmp_path / "other.csv"
    header, row = tuned.text([ROW]).splitlines()
    if content is not None:
        row = row.replace("0.01", "high")
        path.write_text(content.format(header=header, row=row))
    with pytest.raises(UserError, match=message):
        tuned.read(path)


def test_an_option_that_is_gone(tmp_path):
    path = tmp_path / "tuned.csv"
    path.write_text(tuned.text([dataclasses.replace(ROW, options="size=3")]))
    with pytest.raises(UserError, match="vpt-deep on digits: no option 'size'"):
        base("digits", "vpt_deep", "vit_nano", str(path))
