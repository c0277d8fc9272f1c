"""Position embeddings on a square grid: stretched to another grid, or computed."""

import numpy as np

from vpt_jax.bilinear import matrix


def linear(grid: np.ndarray, new: int) -> np.ndarray:
    """(g, g, D) to (new, new, D), corners kept, as the public VPT code does.

    Source: `src/models/vit_backbones/vit.py:351-360` of KMnP/vpt, which calls
    `scipy.ndimage.zoom` with order 1.
    """
    from scipy import ndimage  # a slow import for another image size only

    factor = new / grid.shape[0]
    return np.asarray(ndimage.zoom(grid, (factor, factor, 1), order=1))


def bilinear(grid: np.ndarray, new: int) -> np.ndarray:
    """(g, g, D) to (new, new, D) by the centres of patches, as mmsegmentation does."""
    return _both_ways(matrix(grid.shape[0], new), grid)


def cubic(grid: np.ndarray, new: int, shift: float = 0.0) -> np.ndarray:
    """(g, g, D) to (new, new, D) as PyTorch's `interpolate(mode="bicubic")`.

    Half-pixel centres, no antialiasing, edges repeated: as MAE does it for other image
    sizes (`util/pos_embed.py:92` of facebookresearch/mae). OpenAI's CLIP knows one size
    only and is stretched in the same way.

    Args:
        grid, new: What is stretched, and the side of the new grid.
        shift: Stretch by (new + shift) / g, and keep what the new grid has room for.
    """
    return _both_ways(_cubic_matrix(grid.shape[0], new, shift), grid)


def antialiased(grid: np.ndarray, new: int) -> np.ndarray:
    """(g, g, D) to (new, new, D) as PyTorch's antialiased bicubic interpolation.

    Where the grid shrinks the kernel widens; edges are left out, not repeated. What
    timm does throughout, and DINOv2 with registers.
    """
    old = grid.shape[0]
    scale = old / new
    width = max(scale, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centre) / width
    matrix = _cubic_kernel(distance, a=-0.5)
    return _both_ways(matrix / matrix.sum(axis=1, keepdims=True), grid)


def sincos(grid: int, width: int) -> np.ndarray:
    """(grid, grid, D) fixed embeddings of MoCo v3 (Chen et al., arXiv 2104.02057).

    A quarter of the channels each for sine and cosine of the row, then of the column,
    at wavelengths from 2 pi to 2 pi 10000 (divided by D / 4). Source: `vits.py:53-68`
    of facebookresearch/moco-v3, whose `meshgrid(grid_w, grid_h)` varies the first of
    the two along the rows.
    """
    omega = 10000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = np.arange(grid)[:, None] * omega
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # g, D/2
    shape = (grid, grid, width // 2)
    row = np.broadcast_to(waves[:, None], shape)
    column = np.broadcast_to(waves[None, :], shape)
    return np.concatenate([row, column], axis=2).astype(np.float32)


def _both_ways(matrix: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Rows and columns of a grid by the weights (new, old)."""
    return np.einsum("ai,bj,ijd->abd", matrix, matrix, grid).astype(grid.dtype)


def _cubic_matrix(old: int, new: int, shift: float) -> np.ndarray:
    """(new, old) weights of the cubic convolution with a = -0.75."""
    centre = (np.arange(new) + 0.5) * old / (new + shift) - 0.5
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.floor(centre).astype(int) + tap
        weight = _cubic_kernel(np.abs(centre - index))
        np.add.at(matrix, (np.arange(new), index.clip(0, old - 1)), weight)
    return matrix


def _cubic_kernel(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
