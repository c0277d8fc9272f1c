"""Procedural images with class labels, to pre-train a small ViT without outside data.

Three families share one label space: handwritten-like glyphs (random characters of one
to three pen strokes, written anew for each example), geometric shapes in several
arrangements, and textures. What defines a class is drawn once from a constant seed;
what varies between its examples (writer, pose, pen, colour, resolution, noise) comes
from the seed given to `render`. Glyphs are most of the classes and half of them are
drawn at 8 to 16 pixels and scaled up, so that the features learn pen strokes that small
scans show. Coordinates run over [-1, 1] with y downwards, and a stroke is a complex
array x + iy. Axes: B batch, C classes, J strokes, K sections of a stroke, P points,
h w image.
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int, Int32, UInt8

from vpt_jax.errors import UserError

NUM_GLYPHS = 416
_CLASS_SEED = 20220323  # of the class definitions; changing it changes every class
_CHUNK = 128  # images at a time, which bounds the memory
_POINTS = 72  # per stroke, and kept per glyph
_MIN_SIZE, _MAX_NATIVE = 8, 16  # range of the coarse resolution, in pixels


def _uniform(
    rng: np.random.Generator, low: float | int, high: float | int, *shape: int
):
    return rng.random(shape, dtype=np.float32) * (high - low) + low


def _normal(rng: np.random.Generator, scale: float | int, *shape: int):
    return rng.standard_normal(shape, dtype=np.float32) * scale


def _sign(rng: np.random.Generator, *shape: int):
    return np.where(rng.random(shape) < 0.5, np.float32(-1), np.float32(1))


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of the pixel centres, row by row."""
    centres = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return x.ravel(), y.ravel()


# --------------------------------------------------------------------------- glyphs


class Glyphs(NamedTuple):
    """Glyphs as pen movements: a stroke is up to three sections of constant curvature.

    `parent_point` and `own_point` index the samples where a stroke touches an earlier
    one, which keeps crossings and junctions together however the strokes deform.
    """

    heading: Float32[np.ndarray, "C J"]  # radians at the start of the stroke
    length: Float32[np.ndarray, "C J K"]  # 0 where there is no such section
    turn: Float32[np.ndarray, "C J K"]  # radians turned along the section
    corner: Float32[np.ndarray, "C J K"]  # radians turned just before the section
    parent: Int[np.ndarray, "C J"]
    parent_point: Int[np.ndarray, "C J"]
    own_point: Int[np.ndarray, "C J"]
    samples: Int[np.ndarray, "C P"]  # points kept, spaced evenly over all strokes

    def take(self, index) -> "Glyphs":
        return Glyphs(*(field[index] for field in self))


# Quarter turns of a section, its usual length, and how often it is drawn.
_SECTIONS = np.array(
    [[0, 1.2, 8], [1, 1.2, 4], [2, 1.6, 6], [3, 2.1, 4], [4, 2.4, 3], [4, 1.5, 1]]
)


def _draw_candidates(rng: np.random.Generator, n: int) -> Glyphs:
    """Random glyphs, some of them too alike or too crowded to be classes."""
    kind = rng.choice(len(_SECTIONS), (n, 3, 3), p=_SECTIONS[:, 2] / 26)
    strokes = rng.choice(3, (n, 1, 1), p=[0.35, 0.45, 0.2])
    sections = rng.choice(3, (n, 3, 1), p=[0.45, 0.4, 0.15])
    used = (np.arange(3)[:, None] <= strokes) & (np.arange(3) <= sections)
    length = _SECTIONS[kind, 1] * rng.choice([0.6, 1.0, 1.4], (n, 3, 3)) * used
    corner = rng.choice([0, 0, 0, 90, 90, 135], (n, 3, 3)) * _sign(rng, n, 3, 3)
    corner[:, :, 0] = 0
    parent = np.zeros((n, 3), int)
    parent[:, 2] = rng.integers(0, 2, n)
    ends = np.array([0, 0, 1, 2, 3, 4, 4]) * (_POINTS - 1) // 4
    fields = (
        np.radians(rng.integers(0, 8, (n, 3)) * 45),
        length,
        _SECTIONS[kind, 0] * _sign(rng, n, 3, 3) * np.pi / 2 * used,
        np.radians(corner) * used,
    )
    return Glyphs(
        *(field.astype(np.float32) for field in fields),
        parent=parent,
        parent_point=rng.choice(ends, (n, 3)),
        own_point=rng.choice(ends[[0, 0, 0, 3, 5]], (n, 3)),
        samples=_even_samples(length.sum(-1)),
    )


def _even_samples(lengths) -> Int[np.ndarray, "C P"]:
    """Indices into the flattened (J, P) points, evenly spaced along the ink."""
    ends = np.cumsum(lengths, axis=1)
    starts = ends - lengths
    position = (np.arange(_POINTS) + 0.5) / _POINTS * ends[:, -1:]
    stroke = (position[:, :, None] >= ends[:, None, :]).sum(-1)
    offset = position - np.take_along_axis(starts, stroke, 1)
    fraction = offset / np.take_along_axis(lengths, stroke, 1)
    return stroke * _POINTS + (fraction * _POINTS).astype(int).clip(0, _POINTS - 1)


def _trace(glyphs: Glyphs, wobble) -> Complex64[np.ndarray, "B P"]:
    """Follows the pen; `wobble` is added to its heading at each of the J x P points."""
    start = np.cumsum(glyphs.length, -1) - glyphs.length
    total = glyphs.length.sum(-1, keepdims=True)
    travelled = np.linspace(0, 1, _POINTS, dtype=np.float32) * total
    heading = glyphs.heading[:, :, None] + wobble
    for k in range(glyphs.length.shape[-1]):
        ahead = travelled - start[:, :, k, None]
        done = np.clip(ahead / np.maximum(glyphs.length[:, :, k, None], 1e-3), 0, 1)
        heading = heading + done * glyphs.turn[:, :, k, None]
        heading += (ahead > 0) * glyphs.corner[:, :, k, None]
    path = np.cumsum(np.exp(1j * heading), axis=-1) * (total / _POINTS)
    rows = np.arange(len(path))
    for j in (1, 2):
        anchor = path[rows, glyphs.parent[:, j], glyphs.parent_point[:, j]]
        own = path[rows, j, glyphs.own_point[:, j]]
        path[:, j] += (anchor - own)[:, None]
    return np.take_along_axis(path.reshape(len(path), -1), glyphs.samples, axis=1)


def _fit(path, extent) -> Complex64[np.ndarray, "B P"]:
    """Centres each glyph and scales its longer side to twice `extent`."""
    low = path.real.min(1) + 1j * path.imag.min(1)
    high = path.real.max(1) + 1j * path.imag.max(1)
    half = np.maximum((high - low).real, (high - low).imag) / 2
    return (path - ((low + high) / 2)[:, None]) * (extent / half)[:, None]


def _ink(path, radius, size: int) -> Float32[np.ndarray, "B h w"]:
    """Coverage of each pixel by discs of `radius` [B P] along the path, antialiased."""
    x, y = _grid(size)
    pixels = np.stack([x, y, x**2 + y**2, np.ones_like(x)])
    discs = np.empty((*path.shape, 4), np.float32)
    discs[..., 0], discs[..., 1], discs[..., 2] = -2 * path.real, -2 * path.imag, 1
    discs[..., 3] = path.real**2 + path.imag**2 - radius**2
    # Squared distance minus squared radius, by one matrix product: negative inside.
    power = np.empty((len(path), size * size), np.float32)
    for i in range(0, len(path), 8):  # eight glyphs stay in the cache
        power[i : i + 8] = (discs[i : i + 8] @ pixels).min(1)
    signed_distance = power / (2 * radius.mean(1, keepdims=True))
    return np.clip(0.5 - signed_distance * size / 2, 0, 1).reshape(-1, size, size)


@cache
def _glyph_classes() -> Glyphs:
    """The first NUM_GLYPHS candidates that are not crowded and unlike one another."""
    candidates = _draw_candidates(np.random.default_rng(_CLASS_SEED), 4 * NUM_GLYPHS)
    path = _fit(_trace(candidates, np.float32(0)), np.float32(0.8))
    thick = _ink(path, np.full(path.shape, 0.2, np.float32), 16).reshape(len(path), -1)
    crowded = thick.mean(1) > 0.52
    looks = thick - thick.mean(1, keepdims=True)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    chosen: list[int] = []
    for i in np.flatnonzero(~crowded):
        if len(chosen) < NUM_GLYPHS and (looks[chosen] @ looks[i]).max(initial=0) < 0.8:
            chosen.append(int(i))
    assert len(chosen) == NUM_GLYPHS, len(chosen)
    return candidates.take(np.array(chosen))


def _rewrite(rng: np.random.Generator, glyphs: Glyphs) -> Glyphs:
    """Another writer: other proportions and turns, same movements."""
    n, _, k = glyphs.length.shape
    return glyphs._replace(
        heading=glyphs.heading + _normal(rng, 0.1, n, 3),
        length=glyphs.length * np.exp(_normal(rng, 0.17, n, 3, k)),
        turn=glyphs.turn * (1 + _normal(rng, 0.09, n, 3, k)),
        corner=glyphs.corner * (1 + _normal(rng, 0.12, n, 3, k)),
    )


def _distort(rng: np.random.Generator, path) -> Complex64[np.ndarray, "B P"]:
    """Elastic warp by two plane waves, then rotation, slant and unequal scale."""
    n = len(path)
    path = _fit(path, np.ones(n, np.float32))
    for _ in range(2):
        angle, phase = _uniform(rng, 0, 2 * np.pi, 2, n, 1)
        wave = np.real(path * np.exp(1j * angle)) * _uniform(rng, 1.5, 4, n, 1) + phase
        push = _normal(rng, 0.06, n, 1) + 1j * _normal(rng, 0.06, n, 1)
        path = path + push * np.sin(wave)
    x = np.real(path) * np.exp(_normal(rng, 0.22, n, 1))
    path = x + np.imag(path) * (_normal(rng, 0.18, n, 1) + 1j)
    return path * np.exp(1j * _normal(rng, 0.13, n, 1))


def _draw_glyphs(rng: np.random.Generator, labels, size: int):
    n = len(labels)
    glyphs = _rewrite(rng, _glyph_classes().take(labels))
    t = np.linspace(0, 2 * np.pi, _POINTS, dtype=np.float32)
    phase, cycles = _uniform(rng, 0, 6.28, 2, n, 3, 1), _uniform(rng, 0.5, 2.5, n, 3, 1)
    wobble = _normal(rng, 0.12, n, 3, 1) * np.sin(cycles * t + phase[0])
    path = _distort(rng, _trace(glyphs, wobble))
    pen = _uniform(rng, 0.07, 0.19, n, 1)
    pressure = _uniform(rng, 0, 0.35, n, 1) * np.sin(cycles[:, 0] * t + phase[1, :, 0])
    # Half the glyphs are tall and fill the frame, as cropped scans do.
    cropped = rng.random(n) < 0.5
    narrow = np.where(cropped[:, None], _uniform(rng, 0.55, 1, n, 1), 1)
    path = np.real(path) * narrow + 1j * np.imag(path)
    extent = np.where(cropped, 1, _uniform(rng, 0.65, 0.95, n)) - pen[:, 0]
    room = (1 - extent - pen[:, 0] + 0.06)[:, None]
    shift = _uniform(rng, -1, 1, n, 1) + 1j * _uniform(rng, -1, 1, n, 1)
    path = _fit(path, extent.astype(np.float32)) + shift * room
    return _ink(path.astype(np.complex64), pen * (1 + pressure), size)


# --------------------------------------------------------------------------- shapes

_ANGLES = 256  # of the table of radii that describes an outline
# Where the objects are and how large: (x, y, scale) each.
_ARRANGEMENTS = {
    "filled": [(0, 0, 0.75)],
    "outlined": [(0, 0, 0.75)],
    "beside": [(-0.47, 0, 0.42), (0.47, 0, 0.42)],
    "stacked": [(0, -0.47, 0.42), (0, 0.47, 0.42)],
    "large_small": [(-0.25, -0.25, 0.6), (0.6, 0.6, 0.27)],
    "three": [(0, -0.45, 0.38), (-0.45, 0.42, 0.38), (0.45, 0.42, 0.38)],
}


def _outline(vertices) -> Float32[np.ndarray, "A"]:
    """Radius by angle of a polygon around the origin; vertices complex, in order."""
    vertices = vertices / np.abs(vertices).max()
    vertices = vertices[np.argsort(np.angle(vertices))]
    following = np.roll(vertices, -1)
    ray = np.exp(1j * np.linspace(-np.pi, np.pi, _ANGLES))[:, None]
    edge = np.angle(vertices)[:, None] <= np.angle(ray)[None, :, 0]
    a, b = (ends[edge.sum(0) - 1] for ends in (vertices, following))
    # The ray r meets the line a-b at distance cross(a, b) / cross(r, b - a).
    cross = np.conj(ray[:, 0]) * (b - a)
    return (np.imag(np.conj(a) * b) / np.imag(cross)).astype(np.float32)


@cache
def _outlines() -> Float32[np.ndarray, "O A"]:
    """Polygons, stars, ellipses, crosses, petals and other star-shaped outlines."""
    turn = np.exp(1j * (np.arange(120) * np.pi / 60 + 0.01))
    x, y = np.real(turn), np.imag(turn)
    up = np.exp(-0.5j * np.pi)
    polygons = [up * np.exp(2j * np.pi * np.arange(n) / n) for n in range(3, 9)]
    stars = [
        up * np.exp(1j * np.pi * np.arange(2 * n) / n) * np.tile([1, 0.42], n)
        for n in (4, 5, 6)
    ]
    ellipses = [turn, x + 0.5j * y, 0.5 * x + 1j * y]
    petals = [turn * (1 + 0.45 * np.cos(n * np.angle(turn / up))) for n in (3, 4, 5)]
    arm = np.array([1 + 0.33j, 0.33 + 0.33j, 0.33 + 1j])
    cross = np.concatenate([arm * 1j**k for k in range(4)])
    heart = turn * (1.1 + y - 0.4 * np.abs(x))
    half = np.where(y > 0, x, turn) + 0.35j
    half = np.append(half[y <= 0], [1 + 0.35j, -1 + 0.35j])
    others = [*petals, cross, cross * np.exp(0.25j * np.pi), heart, half]
    return np.stack([_outline(v) for v in polygons + stars + ellipses + others])


def _place(rng: np.random.Generator, n: int, place, size: int):
    """Pixels seen from an object put near `place`: complex [B, h w], and its scale."""
    x, y = _grid(size)
    centre = place[0] + 1j * place[1] + _normal(rng, 0.06, n, 1)
    centre = centre + 1j * _normal(rng, 0.06, n, 1)
    scale = place[2] * np.exp(_normal(rng, 0.12, n, 1))
    seen = (x + 1j * y - centre) * np.exp(1j * _normal(rng, 0.2, n, 1)) / scale
    stretched = seen.real * np.exp(_normal(rng, 0.1, n, 1)) + 1j * seen.imag
    return stretched.astype(np.complex64), scale.astype(np.float32)


def _draw_shapes(rng: np.random.Generator, labels, size: int):
    ink = np.zeros((len(labels), size * size), np.float32)
    for a, (name, places) in enumerate(_ARRANGEMENTS.items()):
        rows = np.flatnonzero(labels // len(_outlines()) == a)
        outline = _outlines()[labels[rows] % len(_outlines())]
        for place in places:
            seen, scale = _place(rng, len(rows), place, size)
            index = (np.angle(seen) / np.pi + 1) * ((_ANGLES - 1) / 2) + 0.5
            index = index.astype(int).clip(0, _ANGLES - 1)
            inside = np.take_along_axis(outline, index, 1) - np.abs(seen)
            if name == "outlined":
                width = _uniform(rng, 0.08, 0.16, len(rows), 1)
                inside = width - np.abs(inside - width)
            cover = np.clip(0.5 + inside * scale * size / 2, 0, 1)
            ink[rows] = np.maximum(ink[rows], cover)
    return ink.reshape(-1, size, size)


# ------------------------------------------------------------------------- textures


def _waves(kind: str, u, v):
    """A field in [-1, 1] from the coordinates u and v, in radians."""
    if kind == "grating":
        return np.sin(u)
    if kind == "bars":
        return np.tanh(6 * (np.sin(u) - 0.6))
    if kind == "checker":
        return np.tanh(6 * np.sin(u) * np.sin(v))
    if kind == "dots":
        return np.tanh(3 * (np.cos(u) + np.cos(v) - 0.9))
    if kind == "woven":
        over = np.sin(u / 2) * np.sin(v / 2) > 0
        return np.where(over, np.abs(np.sin(u / 2)), np.abs(np.sin(v / 2))) * 2 - 1
    return np.sin(np.sqrt(u**2 + v**2))  # rings


def _cells(rng: np.random.Generator, kind: str, count, size: int):
    """Voronoi cells of about `count`² random sites: grey levels, or their walls."""
    x, y = _grid(size)
    site = _uniform(rng, -1.1, 1.1, 2, len(count), 36, 1)
    site[0, np.arange(36)[None] >= (count**2)[:, None]] = 9  # far outside: not used
    distance = (x - site[0]) ** 2 + (y - site[1]) ** 2
    if kind == "walls":
        first, second = np.moveaxis(np.partition(distance, 1, axis=1)[:, :2], 1, 0)
        return np.tanh(12 * (np.sqrt(second) - np.sqrt(first)) - 1.5)
    level = _uniform(rng, -1, 1, len(count), 36)
    return np.take_along_axis(level, distance.argmin(1), 1)


def _spectral(rng: np.random.Generator, kind: str, slope, size: int):
    """Noise whose amplitude falls as frequency**-slope; blobs are its two halves."""
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)
    stretch = {"streaks_x": (0.25, 1), "streaks_y": (1, 0.25)}.get(kind, (1, 1))
    frequency = np.hypot(fx / stretch[0], fy / stretch[1]) + 1
    white = np.fft.rfft2(_normal(rng, 1, len(slope), size, size))
    white[:, 0, 0] = 0
    noise = np.fft.irfft2(white * frequency ** -slope[:, None, None], (size, size))
    noise /= noise.std((1, 2), keepdims=True)
    noise = np.tanh(noise * (8 if kind == "blobs" else 0.8))
    return noise.reshape(len(slope), -1)


def _texture_classes() -> list[tuple[str, float | int, float | int]]:
    """Kind, angle in radians, and cycles, cells per side or spectral slope."""
    wave = [2.0, 3.2, 5.0, 8.0]
    tilt = np.pi / 6 * np.arange(6)
    classes = [("grating", a, f) for f in wave for a in tilt]
    classes += [("bars", a, f) for f in wave[:3] for a in tilt[::3]]
    kinds = ("checker", "dots", "woven")
    classes += [(k, a, f) for k in kinds for f in wave[:3] for a in (0, np.pi / 4)]
    classes += [("rings", 0, f) for f in wave]
    classes += [(k, 0, c) for k in ("cells", "walls") for c in (2, 3, 4.2, 5.8)]
    classes += [("noise", 0, s) for s in (0, 0.8, 1.6, 2.6)]
    kinds = ("blobs", "streaks_x", "streaks_y")
    return classes + [(k, 0, s) for k in kinds for s in (1.3, 2.2)]


def _draw_textures(rng: np.random.Generator, labels, size: int):
    classes = _texture_classes()
    kinds = np.array([kind for kind, _, _ in classes])[labels]
    angle, amount = np.array([values for _, *values in classes], np.float32)[labels].T
    x, y = _grid(size)
    field = np.empty((len(labels), size * size), np.float32)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        n, value = len(rows), amount[rows] * np.exp(_normal(rng, 0.06, len(rows)))
        if kind in ("cells", "walls"):
            field[rows] = _cells(rng, kind, value, size)
        elif kind in ("noise", "blobs", "streaks_x", "streaks_y"):
            field[rows] = _spectral(rng, kind, value, size)
        else:
            centre = _normal(rng, 0.4, 2, n, 1)
            x0, y0 = x - centre[0], y - centre[1]
            a = angle[rows, None] + _normal(rng, 0.07, n, 1)
            u, v = x0 * np.cos(a) + y0 * np.sin(a), y0 * np.cos(a) - x0 * np.sin(a)
            field[rows] = _waves(kind, *(np.pi * value[:, None] * w for w in (u, v)))
    return (field * 0.5 + 0.5).reshape(-1, size, size)


# --------------------------------------------------------------- camera and colours


@cache
def _coarsen(native: int, size: int) -> Float32[np.ndarray, "size size"]:
    """Area averaging from `size` to `native` pixels, then linear scaling back."""
    edges = np.arange(native + 1) * size / native
    pixel = np.arange(size)
    overlap = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(
        pixel, edges[:-1, None]
    )
    average = overlap.clip(0) * native / size
    position = ((pixel + 0.5) * native / size - 0.5).clip(0, native - 1)
    enlarge = np.clip(1 - np.abs(position[:, None] - np.arange(native)), 0, 1)
    return (enlarge @ average).astype(np.float32)


def _blur(sigma, size: int) -> Float32[np.ndarray, "B h h"]:
    """One Gaussian smoothing matrix per image; `sigma` in pixels."""
    gap = np.subtract.outer(np.arange(size), np.arange(size)).astype(np.float32)
    weight = np.exp(-0.5 * (gap / sigma[:, None, None]) ** 2)
    return weight / weight.sum(-1, keepdims=True)


def _photograph(rng: np.random.Generator, ink, coarse: float):
    """Blurs the ink, or with probability `coarse` takes it at a low resolution."""
    n, size, _ = ink.shape
    # All that falls below the smallest size counts as it: 8 pixels in 5 of 13 cases.
    native = np.maximum(rng.integers(_MIN_SIZE - 4, _MAX_NATIVE + 1, n), _MIN_SIZE)
    sharp = _blur(_uniform(rng, 0.2, 0.9, n) * size / 32, size)
    low = np.stack([_coarsen(k, size) for k in range(_MIN_SIZE, _MAX_NATIVE + 1)])
    is_coarse = (rng.random(n) < coarse)[:, None, None]
    lens = np.where(is_coarse, low[native - _MIN_SIZE], sharp)
    return lens @ ink @ lens.transpose(0, 2, 1)


def _develop(rng: np.random.Generator, ink, coloured: float, inverted: float):
    """Paints ink in [0, 1] with two colours, shading and noise; uint8 [B h w 3]."""
    n, size, _ = ink.shape
    ink = ink.clip(0, 1) ** _uniform(rng, 0.7, 1.4, n, 1, 1)
    tint = _uniform(rng, 0, 0.45, 2, n, 3) * (rng.random((n, 1)) < coloured)
    # Half the papers are perfectly black, as in cleaned scans.
    paper = np.maximum(_uniform(rng, -0.25, 0.25, n, 1), 0) + tint[0]
    pen = _uniform(rng, 0.6, 1, n, 1) - tint[1]
    swap = rng.random((n, 1)) < inverted
    paper, pen = np.where(swap, pen, paper), np.where(swap, paper, pen)
    x, y = _grid(size)
    slope = _normal(rng, 0.08, 2, n, 1) * (rng.random((n, 1)) < 0.3)
    grain = _uniform(rng, 0, 0.07, n, 1) * (rng.random((n, 1)) < 0.4)
    extra = slope[0] * x + slope[1] * y + grain * _normal(rng, 1, n, size * size)
    image = (pen - paper)[:, None, None] * ink[..., None] + paper[:, None, None]
    image += extra.reshape(n, size, size, 1)
    return (image * 255).clip(0, 255).astype(np.uint8)


NUM_SHAPES = len(_outlines()) * len(_ARRANGEMENTS)
NUM_TEXTURES = len(_texture_classes())
NUM_CLASSES = NUM_GLYPHS + NUM_SHAPES + NUM_TEXTURES

# Per family: how to draw it, how many classes, and the probabilities of a low
# resolution, of colour, and of dark ink on light paper.
_FAMILIES = (
    (_draw_glyphs, NUM_GLYPHS, 0.5, 0.25, 0.2),
    (_draw_shapes, NUM_SHAPES, 0.25, 0.7, 0.5),
    (_draw_textures, NUM_TEXTURES, 0.0, 0.7, 0.5),
)


def _render_labels(
    rng: np.random.Generator, labels: Int32[np.ndarray, "B"], size: int
) -> UInt8[np.ndarray, "B h w 3"]:
    images = np.empty((len(labels), size, size, 3), np.uint8)
    first = 0
    for draw, count, coarse, coloured, inverted in _FAMILIES:
        rows = np.flatnonzero((labels >= first) & (labels < first + count))
        if len(rows):
            ink = draw(rng, labels[rows] - first, size).astype(np.float32)
            ink = _photograph(rng, ink, coarse)
            images[rows] = _develop(rng, ink, coloured, inverted)
        first += count
    return images


# --------------------------------------------------------------------------- scenes

_SCENES = 0.6  # share of images that show a glyph or two upon a shape or a texture
_PAIRS = 0.5  # share of those that show two, where three things are allowed
_CONTRAST = (0.25, 0.7)  # of a glyph's brightness to what it covers
_TINT = 0.15  # how far its red, green and blue are from that


def _render_scenes(
    rng: np.random.Generator, labels: Int32[np.ndarray, "B"], size: int, pairs: float
) -> UInt8[np.ndarray, "B h w 3"]:
    """Images of which most show several things; the class is that of any of them."""
    images = _render_labels(rng, labels, size)
    rows = np.flatnonzero(rng.random(len(labels)) < _SCENES)
    own, n = labels[rows], len(rows)
    of_glyph = own < NUM_GLYPHS
    ground = rng.integers(NUM_GLYPHS, NUM_CLASSES, n, dtype=np.int32)
    first, second = rng.integers(0, NUM_GLYPHS, (2, n), dtype=np.int32)
    first = np.where(of_glyph, own, first)
    scene = _render_labels(rng, np.where(of_glyph, ground, own), size)
    pair = rng.random(n) < pairs
    scene[~pair] = _paint(rng, scene[~pair], _glyph_ink(rng, first[~pair], size))
    left = rng.random(pair.sum()) < 0.5
    for labels_of, at_left in ((first[pair], left), (second[pair], ~left)):
        if len(labels_of):
            half = _glyph_ink(rng, labels_of, size // 2)
            scene[pair] = _paint(rng, scene[pair], _put(rng, half, at_left))
    images[rows] = scene
    return images


def _glyph_ink(rng: np.random.Generator, labels, size: int):
    draw, _, coarse, *_ = _FAMILIES[0]
    ink = draw(rng, labels, size).astype(np.float32)
    return _photograph(rng, ink, coarse).clip(0, 1)


def _put(rng: np.random.Generator, half, left):
    """Ink (B, h, w) in the left or right half, at any height, of twice the size."""
    n, size, _ = half.shape
    whole = np.zeros((n, 2 * size, 2 * size), np.float32)
    y = rng.integers(0, size + 1, n)
    x = np.where(left, 0, size) + rng.integers(-2, 3, n)
    x = x.clip(0, size)
    for ink, canvas, top, start in zip(half, whole, y, x, strict=True):
        canvas[top : top + size, start : start + size] = ink
    return whole


def _paint(rng: np.random.Generator, grounds, ink):
    """Ink upon images, lighter than dark ground and darker than light."""
    n, ink = len(grounds), ink[..., None]
    below = grounds / np.float32(255)
    weight = ink.sum((1, 2, 3)) + 1e-6
    covered = (below.mean(-1, keepdims=True) * ink).sum((1, 2, 3)) / weight
    contrast = _uniform(rng, *_CONTRAST, n)
    contrast = np.where(covered > 0.5, -contrast, contrast)
    colour = (covered + contrast)[:, None] + _uniform(rng, -_TINT, _TINT, n, 3)
    painted = below * (1 - ink) + colour.clip(0, 1)[:, None, None] * ink
    return (painted * 255).clip(0, 255).astype(np.uint8)


def render(
    num_images: int, seed: int, image_size: int = 32, things: int = 1
) -> tuple[UInt8[np.ndarray, "B h w 3"], Int32[np.ndarray, "B"]]:
    """Draws labelled images; the same arguments give the same images.

    Args:
      num_images: how many; their classes are drawn uniformly from NUM_CLASSES.
      seed: decides labels and examples, never what the classes are.
      image_size: height and width in pixels, even, at least 16; of three things 32.
      things: 1, 2 or 3: how many an image may show, of which any is the class.

    Returns:
      Images as uint8 RGB, and their classes.
    """
    least = 2 * _MAX_NATIVE if things == 3 else _MAX_NATIVE
    if image_size < least:
        raise UserError(
            f"image_size is {image_size}; procedural images need at least "
            f"{least} pixels a side: choose a larger size."
        )
    draw = _render_labels
    if things > 1:
        draw = partial(_render_scenes, pairs=_PAIRS if things == 3 else 0.0)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, num_images, dtype=np.int32)
    images = np.empty((num_images, image_size, image_size, 3), np.uint8)
    for start in range(0, num_images, _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part] = draw(rng, labels[part], image_size)
    return images, labels
