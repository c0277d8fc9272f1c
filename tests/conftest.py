"""What the tests share: a strict JAX, and a run that takes a second or two."""

import gc
import os
import sys
import tempfile
import warnings

from jaxtyping import install_import_hook

install_import_hook("vpt_jax", "typechecker.checked")  # before any of it is imported

import grain  # noqa: F401  (flags that it defined later, `flagsaver` would remove)
import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from flax import nnx

from vpt_jax import backbones
from vpt_jax.backbones.vit import ViT, ViTConfig
from vpt_jax.checkpoints import original_vit
from vpt_jax.config import base
from vpt_jax.types import flatten

VIT_TEST = ViTConfig(patch=4, width=16, depth=2, heads=2, mlp_dim=32, image_size=8)


def pytest_addoption(parser):
    parser.addoption("--parity-dir", default=None, help="folder of golden cases")


def pytest_configure(config):
    # What JAX keeps of thousands of programs is searched in vain again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if hasattr(config, "workerinput"):
        return  # the rest is in the environment that the first process gave
    # Tiny programs: compiling takes the time, so let the compiler do less.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} --xla_backend_optimization_level=0".strip()
    # Runs of one shape are compiled once, here and in processes that tests start. What
    # another has half written is compiled again (see the warnings in pyproject.toml).
    cache = tempfile.TemporaryDirectory()
    config.add_cleanup(cache.cleanup)
    settings = {
        "jax_compilation_cache_dir": cache.name,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def save_checkpoint(tmp_path_factory):
    """Writes a `vit_test` with random weights from a seed; returns the path."""

    def save(seed):
        model = ViT(VIT_TEST, rngs=nnx.Rngs(seed))
        path = tmp_path_factory.mktemp("checkpoint") / "vit_test.npz"
        leaves = flatten(nnx.as_pure(nnx.state(model)))
        original_vit.save(path, leaves, VIT_TEST.heads)
        return path

    return save


@pytest.fixture(scope="session")
def checkpoint(save_checkpoint):
    return save_checkpoint(0)


@pytest.fixture(scope="module")
def new_tiny(checkpoint):
    """Makes configurations of 3 epochs of 4 steps on `digits`, backbone `vit_test`."""

    def new():
        config = base("digits", "vpt_deep", "vit_test")
        config.backbone.checkpoint = str(checkpoint)
        config.method.length = 2
        config.optim.lr = 0.1
        config.optim.weight_decay = 1e-3
        config.epochs = 3
        config.batch_size = 256
        config.data.test_examples = 50
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.CONFIGS, "vit_test", VIT_TEST)
        yield new


@pytest.fixture
def tiny(new_tiny):
    return new_tiny()


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs launch.py in this process: arguments to (exit code, stdout, stderr)."""
    from vpt_jax import cli

    def run(*arguments):
        argv = ["launch.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)  # where config overrides are read
        capsys.readouterr()
        with flagsaver.flagsaver(), warnings.catch_warnings():
            # ml_collections imports config files by a deprecated function.
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            flags.FLAGS.unparse_flags()
            # Else the next config file would be loaded on top of the last one.
            sys.modules.pop("config_config", None)
            try:
                code = cli.run(cli.parse(argv))
            except SystemExit as end:
                code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def tiny_flags(tiny):
    """The command line that asks for `tiny`."""
    keys = (
        *("backbone.checkpoint", "method.length", "optim.lr"),
        *("optim.weight_decay", "epochs", "batch_size", "data.test_examples"),
    )
    flat = {k: v for k, v in tiny.items() if not hasattr(v, "items")}
    for group, values in tiny.items():
        if hasattr(values, "items"):
            flat |= {f"{group}.{key}": value for key, value in values.items()}
    return [
        "--config=configs/vtab.py:digits,vpt_deep,vit_test",
        *(f"--config.{key}={flat[key]}" for key in keys),
    ]
