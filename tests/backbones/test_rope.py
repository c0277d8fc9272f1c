"""Rotary positions: who turns, and how far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax.backbones import rope
from vpt_jax.backbones.dinov3 import DINOv3Config
from vpt_jax.backbones.eva02 import EVA02Config
from vpt_jax.backbones.pe import PEConfig

SHAPE = (4, 16, 1, 2, 32, 12)  # patch, width, depth, heads, MLP, image: 3 x 3 patches
FAMILIES = {
    "dinov3": DINOv3Config(*SHAPE),
    "pe": PEConfig(*SHAPE, native=3),
    "eva02": EVA02Config(*SHAPE),
}


def placed(config, tokens, read=slice(None)):
    """Queries and keys of tokens that are all alike."""
    attention = rope.RotaryAttention(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    each = jax.random.normal(jax.random.key(1), (2, 1, 1, 2, 8))
    query, key = jnp.broadcast_to(each, (2, 1, tokens, 2, 8))
    return attention.placed(query[:, read], key, read)


def scores(config, tokens):
    return np.einsum("bnhk,bmhk->nmh", *placed(config, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_see_how_far_apart_they_are(family):
    found = scores(FAMILIES[family], 9)
    places = [divmod(n, 3) for n in range(9)]
    by_distance = {}
    for n, (row, column) in enumerate(places):
        for m, (other_row, other_column) in enumerate(places):
            offset = (other_row - row, other_column - column)
            by_distance.setdefault(offset, []).append(found[n, m])
    assert len(by_distance) == 25
    for alike in by_distance.values():
        np.testing.assert_allclose(alike, alike[:1] * len(alike), atol=1e-5)
    means = np.array([np.mean(alike, axis=0)[0] for alike in by_distance.values()])
    assert len(np.unique(means.round(4))) == 25


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stands_before_the_patches_does_not_turn(family):
    """CLS, registers and prompts, however many of them there are."""
    config = FAMILIES[family]
    found, fewer = scores(config, 9 + 5), scores(config, 9 + 1)
    np.testing.assert_allclose(found[:5, :5], found[:1, :1] * np.ones((5, 5, 1)), 1e-5)
    np.testing.assert_allclose(found[4:, 4:], fewer, atol=1e-6)
    assert np.ptp(found[0, 5:, 0]) > 0.1  # they see where the patches are


@pytest.mark.parametrize("read", [slice(0, 1), slice(1, None), slice(3, 7)])
def test_some_ask(read):
    config = FAMILIES["pe"]
    query, key = placed(config, 10, read)
    whole = placed(config, 10)
    np.testing.assert_array_equal(query, whole[0][:, read])
    np.testing.assert_array_equal(key, whole[1])


def test_angles_by_hand():
    """3 x 3 patches, 8 channels a head: two pairs turn by the row, two by the column.

    Patch 5 is in row 1 and column 2; base^(-1/2) is 0.1 and 0.01.
    """
    turns = 2 * np.pi * np.array([0.0, 2 / 3])  # centres at -2/3, 0, 2/3
    wanted = [turns[0], turns[0] / 10, turns[1], turns[1] / 10]
    np.testing.assert_allclose(FAMILIES["dinov3"].angles()[5], wanted)
    np.testing.assert_allclose(FAMILIES["pe"].angles()[5], [3, 0.03, 2, 0.02])
    spread = np.array([16 / 3, 16 / 300, 32 / 3, 32 / 300])
    np.testing.assert_allclose(FAMILIES["eva02"].angles()[5], spread)
