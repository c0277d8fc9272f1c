"""Images of any size labelled by windows: as plain loops, with few programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training import tiny

from vpt_jax import objectives, parallel
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.data import windows
from vpt_jax.data.examples import Examples
from vpt_jax.training import pixels, programs
from vpt_jax.training.judge import judge

SHAPE = ViTConfig(patch=4, width=8, depth=2, heads=2, mlp_dim=16, image_size=16)
SIZES = [(16, 16), (20, 33), (40, 21)]
SEGMENTATION = objectives.OBJECTIVES["segmentation"]


@pytest.fixture(scope="module")
def problem():
    """A random network that labels four classes, and images with targets."""
    setup = tiny.make_setup(
        "linear",
        shape=SHAPE,
        objective=SEGMENTATION,
        num_classes=4,
        class_weights=np.ones(4, np.float32),
    )
    rng = np.random.default_rng(0)
    trees = [
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(2, *x.shape)), x.dtype), t)
        for t in setup.network.parts[1::2]
    ]
    trees[1] = jax.tree.map(jnp.abs, trees[1])  # variances
    images = [rng.integers(0, 255, (*size, 4)).astype(np.uint8) for size in SIZES]
    for image in images:
        image[..., 3] = rng.choice([0, 1, 2, 3, 255], image.shape[:2])
    examples = Examples(images, np.zeros(3, np.int32), ("a", "b", "c"))
    mesh = parallel.make_mesh(2, pixels.BATCH)
    frozen = programs.place_frozen(setup.network, mesh)
    return setup.network, mesh, tuple(trees), frozen, examples


def logits_of(problem, trial, raw):
    """(1, m, m, C) of one window, by the plain model."""
    network, _, tuned, frozen, _ = problem
    groups = [jax.tree.map(lambda x: x[trial], tree) for tree in tuned]
    model = nnx.merge(network.parts[0], groups[0], frozen, groups[1])
    size = raw.shape[0]
    pixels.regrid(model, size)
    return model(network.normalised(jnp.asarray(raw)[None], size)).main[0]


def resize(x, height, width):
    shape = (height, width, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def loop(problem, trial, image, ratio, mirror):
    """Softmax at the image's own size: windows one by one, added and counted."""
    image = jnp.asarray(image[..., :3], jnp.float32)
    image = image[:, ::-1] if mirror else image
    height, width, _ = image.shape
    window = min(16, round(ratio * 16 / 4) * 4)
    shorter = max(window, round(16 * ratio))
    factor = shorter / min(height, width)
    high, wide = (max(shorter, int(x * factor + 0.5)) for x in (height, width))
    large = resize(image, high, wide)
    total, number = np.zeros((high, wide, 4)), np.zeros((high, wide, 1))
    stride = window * 2 // 3
    for y in range(-(-(high - window) // stride) + 1):
        for x in range(-(-(wide - window) // stride) + 1):
            top, left = min(y * stride, high - window), min(x * stride, wide - window)
            rows, columns = slice(top, top + window), slice(left, left + window)
            logits = logits_of(problem, trial, large[rows, columns])
            total[rows, columns] += resize(logits, window, window)
            number[rows, columns] += 1
    back = resize(jnp.asarray(total / number, jnp.float32), height, width)
    back = back[:, ::-1] if mirror else back
    return np.asarray(jax.nn.softmax(back))


@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_labels_are_those_of_a_plain_loop(problem, several, monkeypatch):
    monkeypatch.setattr(pixels, "TILE", 24)  # several tiles, also at the edges
    jax.clear_caches()
    network, mesh, tuned, frozen, examples = problem
    found = pixels.labelled(*problem, several)
    ratios = windows.RATIOS if several else (1.0,)
    looks = [(r, m) for r in ratios for m in ((False, True) if several else (False,))]
    wrong = 0
    for index, (image, labels) in enumerate(found):
        if several and index != 1:
            continue
        for trial in range(2):
            wanted = sum(loop(problem, trial, image, *look) for look in looks)
            ranked = np.sort(wanted, axis=-1)
            clear = ranked[..., -1] - ranked[..., -2] > 1e-3  # no tie
            assert clear.mean() > 0.98
            wrong += (labels[trial] != wanted.argmax(-1))[clear].sum()
    assert wrong == 0


def test_counts_add_up_and_sizes_share_programs(problem):
    network, mesh, tuned, frozen, examples = problem
    found = judge(network, mesh, tuned, frozen, examples)
    for trial in range(2):
        counts = sum(
            SEGMENTATION.counts_of(labels[trial], image[..., 3], 4)
            for image, labels in pixels.labelled(*problem)
        )
        assert found.scores[trial] == SEGMENTATION.score(counts)
    assert found.scores[0]["miou"] != found.scores[1]["miou"]
    run = pixels.make_windows(network, mesh, 16)
    assert run._cache_size() == 1  # whatever the sizes of the images


def test_positions_of_smaller_windows_are_those_of_patches(problem):
    network, _, tuned, frozen, _ = problem
    groups = [jax.tree.map(lambda x: x[0], tree) for tree in tuned]
    model = nnx.merge(network.parts[0], groups[0], frozen, groups[1])
    before = model.backbone.pos_embed[...]
    pixels.regrid(model, 8)
    after = model.backbone.pos_embed[...]
    assert after.shape == (1, 5, 8)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    grid = before[0, 1:].reshape(4, 4, 8)
    wanted = jax.image.resize(grid, (2, 2, 8), "bilinear", antialias=False)
    np.testing.assert_allclose(after[0, 1:], wanted.reshape(4, 8), atol=1e-6)


def test_a_step_learns_the_fourth_channel():
    setup = tiny.make_setup(
        "linear", shape=SHAPE, objective=SEGMENTATION, class_weights=np.ones(3)
    )
    rng, mesh = np.random.default_rng(1), parallel.make_mesh(1, setup.batch_size)
    fed = rng.integers(0, 3, (tiny.BATCH, 16, 16, 4)).astype(np.float32)
    order, none = jnp.arange(12), jnp.zeros(tiny.NUM_EXAMPLES, jnp.int32)
    batch = programs._batch(
        setup, mesh, "shared", order, 0, jnp.asarray(fed), none, jnp.int32(2)
    )
    np.testing.assert_array_equal(batch.targets, fed[..., 3])
    wanted = setup.network.normalised(jnp.asarray(fed[..., :3]))
    np.testing.assert_array_equal(batch.x, wanted)
    assert batch.mask.tolist() == [1, 1, 0, 0]  # 10 images in batches of 4
