"""What the suite promises of itself."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture
def own_cache(tmp_path):
    """A compile cache of this test alone."""
    shared = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", shared)


def test_what_another_worker_has_half_written_is_compiled_again(own_cache):
    """Workers share a cache, whose entries are not written at once."""

    def run():
        return jax.jit(lambda x: 3 * x + 1)(jnp.arange(4.0)).tolist()

    assert run() == [1, 4, 7, 10]
    entries = list(own_cache.glob("*-cache"))
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
    jax.clear_caches()
    assert entries and run() == [1, 4, 7, 10]
