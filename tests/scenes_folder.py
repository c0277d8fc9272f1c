"""A folder of tiny scenes with masks: what they show can be read off their colours."""

import numpy as np
from PIL import Image

NAMES = ("left", "right", "above")
IGNORED = 11


def scene(rng):
    """(image, mask): three regions of different colours, a row without a class."""
    height, width = (int(n) for n in rng.integers(12, 30, 2))
    mask = np.zeros((height, width), np.uint8)
    mask[:, int(rng.integers(4, width - 4)) :] = 1
    mask[: height // 3] = 2
    mask[0] = IGNORED
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]] + [[9] * 3] * 9)
    noise = rng.integers(0, 40, (height, width, 3))
    return (colours[mask] + noise).astype(np.uint8), mask


def write(root, counts=(4, 2, 3), parts=("train", "val", "test"), names=NAMES):
    """`counts` scenes in each of `parts`."""
    rng = np.random.default_rng(0)
    for part, count in zip(parts, counts, strict=True):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for n in range(count):
            image, mask = scene(rng)
            Image.fromarray(image).save(root / "images" / part / f"s{n}.png")
            Image.fromarray(mask).save(root / "annotations" / part / f"s{n}.png")
    if names:
        (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root
