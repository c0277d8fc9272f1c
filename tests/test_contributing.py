"""The example of CONTRIBUTING.md is a method that trains."""

import pathlib
import sys
import types

import jax
import numpy as np
from training import tiny

from vpt_jax.methods import recipes

TEXT = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_the_example_runs(monkeypatch):
    between = TEXT.split("<!-- example: runs as a test -->")[1].split("<!-- end -->")[0]
    source = between.strip().removeprefix("```python").removesuffix("```")
    scale = types.ModuleType("scale")
    monkeypatch.setitem(sys.modules, "scale", scale)  # where dataclasses look
    exec(source, scale.__dict__)
    line = TEXT.split('    "scale": Recipe(')[1].split(",\n")[0]
    recipe = eval(f"Recipe({line}", vars(recipes) | {"scale": scale})
    monkeypatch.setitem(recipes.METHODS, "scale", recipe)

    setup = tiny.make_setup("scale", {"start": 2.0})
    assert setup.cut == 4  # all of the backbone is frozen, and cached
    state = tiny.run(setup, tiny.make_hyper([0.1], [0], [1]), [9])
    scale = np.asarray(state.trainable["head"]["scale"])
    assert scale.shape == (1, 1, 8) and np.abs(scale - 2.0).max() > 1e-3
    assert state.loss[0, -1] < state.loss[0, 0]
    both = tiny.make_setup("prompt+scale", {"start": 2.0})
    assert set(both.parts[1]) == {"edits", "head"}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.trainable))
