"""These tests need PyTorch: they are collected only where they are asked for."""


def pytest_ignore_collect(collection_path, config):
    """Only `pytest -m peers` (or an expression with that word) looks in here."""
    return None if "peers" in config.option.markexpr else True
