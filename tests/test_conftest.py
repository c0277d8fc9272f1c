"""What the suite promises of itself."""

import pathlib

import jax


def test_each_worker_has_a_compile_cache_of_its_own(worker_id):
    assert pathlib.Path(jax.config.jax_compilation_cache_dir).name.startswith(worker_id)
