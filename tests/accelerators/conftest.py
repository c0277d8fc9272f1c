"""These tests need libtpu: they are collected only where they are asked for."""


def pytest_ignore_collect(collection_path, config):
    """Only `pytest -m tpu` (or an expression with that word) looks in here."""
    return None if "tpu" in config.option.markexpr else True
