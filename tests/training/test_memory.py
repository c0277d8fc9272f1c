"""Running out of memory is one line that says what was too much and what to lower."""

import jax
import pytest
from training import tiny

import vpt_jax
from vpt_jax.errors import UserError
from vpt_jax.training import programs
from vpt_jax.training.memory import explained

OUT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2500000000 bytes."


def fail(*_):
    raise jax.errors.JaxRuntimeError(OUT)


def test_a_run_that_does_not_fit(command, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "compile_chunk", fail)
    code, out, err = command(*tiny_flags, "--workdir", tmp_path / "run")
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    for part in (
        "1 trial(s) of batch_size 256",
        "2.5 GB",
        "lower batch_size",
        "backbone.remat=True",
        "method.length",
        "image_size",
    ):
        assert part in line, line
    assert "sweep.trials" not in line  # there is one


def test_only_what_can_help_is_proposed():
    setup = tiny.make_setup("linear", remat=True)
    with pytest.raises(UserError) as error, explained(setup, 16):
        fail()
    told = str(error.value)
    assert "sweep.trials" in told
    assert "method.length" not in told and "remat" not in told


def test_other_errors_keep_their_traceback():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with explained(tiny.make_setup(), 1):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    assert vpt_jax.UserError is UserError
