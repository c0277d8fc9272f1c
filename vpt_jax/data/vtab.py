"""VTAB-1k: each task's 800 training, 200 validation and all test images.

Slices, class counts and label rules are those of task_adaptation, the benchmark's own
code. Slices count in the order of the TFDS files, which TFDS shuffled when it wrote
them: the same slice of a TFDS preparation is the same 1,000 images for everyone. The
order can differ between versions of a data set, so versions are pinned and results
carry a fingerprint of the images.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vpt_jax.data import reading
from vpt_jax.data.reading import TfdsSet
from vpt_jax.data.source import Source
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError

NUM_VAL = 200
GROUPS = ("natural", "specialized", "structured")
Record = Mapping[str, Any]

# ---- label rules: from a record to its class


def clevr_count(record: Record) -> int:
    """Number of objects: 3 to 10 are the classes 0 to 7."""
    return len(record["objects"]["pixel_coords"]) - 3


def clevr_distance(record: Record) -> int:
    """Depth of the closest object, in 6 bins."""
    depth = min(float(xyz[2]) for xyz in record["objects"]["pixel_coords"])
    return _bin(depth, (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0))


def kitti_distance(record: Record) -> int:
    """Distance [m] of the closest car, van or truck in 3 bins; 3 without any."""
    objects = record["objects"]
    pairs = zip(objects["type"], objects["location"], strict=True)
    distances = [float(xyz[2]) for kind, xyz in pairs if kind < 3]
    return _bin(min([1000.0, *distances]), (-100.0, 8.0, 20.0, 999.0))


def dsprites_location(record: Record) -> int:
    """32 horizontal positions in 16 bins."""
    return int(record["label_x_position"] // 2)


def dsprites_orientation(record: Record) -> int:
    """40 orientations in 16 bins, which hold 3 and 2 of them by turns."""
    return int(record["label_orientation"] // 2.5)


def _bin(value: float, edges: tuple[float, ...]) -> int:
    """The last bin whose lower edge is strictly below the value."""
    return int(np.searchsorted(edges, value)) - 1


# ---- the table


@dataclasses.dataclass(frozen=True)
class VtabTask:
    """One row of the benchmark.

    Attributes:
      tfds: the TFDS data set; two tasks may share one.
      group: one of `GROUPS`.
      num_classes: C.
      val: a TFDS slice whose first 200 records are the validation images.
      test: the test images, a TFDS slice.
      train: the 800 training images, a TFDS slice.
      label: from a record, without its images, to its class, 0 to C - 1.
      names: the C class names, or the feature that knows them.
      scale: pixels are multiplied by it (dSprites holds 0 and 1).
      prompt_lengths: P of VPT-shallow and VPT-deep behind the paper's ViT-B/16 rows,
        the members of its grid that give the printed tuned / total (appendix). Where
        several shallow ones do, the one remembered from the authors' release.
    """

    tfds: TfdsSet
    group: str
    num_classes: int
    val: str
    prompt_lengths: tuple[int, int]
    test: str = "test"
    train: str = "train[:800]"
    label: Callable[[Record], int] = operator.itemgetter("label")
    names: tuple[str, ...] | str = "label"
    scale: int = 1


_SUN397 = TfdsSet(
    "sun397/tfds:4.0.0",
    gigabytes=3.0,
    by_hand="the address that TFDS knows (vision.princeton.edu) is dead. Get "
    "SUN397.tar.gz (39,077,296,924 bytes) and Partitions.zip (18,293,705 bytes) of the "
    "original release from a mirror and put both, unopened, into {manual}; TFDS "
    "compares their sha256 and uses them instead of downloading",
    must_exist="SUN397.tar.gz",
)
_EUROSAT = TfdsSet(
    "eurosat/rgb:2.0.0",
    gigabytes=0.1,
    by_hand="if its host (madm.dfki.de) does not answer, get EuroSAT.zip of the "
    "original release (94,280,567 bytes) from a mirror and put it, unopened, into "
    "{manual}; TFDS compares its sha256",
)
_RESISC45 = TfdsSet(
    "resisc45:3.0.0",
    gigabytes=0.5,
    by_hand="get NWPU-RESISC45.rar (Cheng, Han and Lu, 2017) from the authors' page "
    "https://gcheng-nwpu.github.io/#Datasets and unpack it so that the images lie at "
    "{manual}/NWPU-RESISC45/<class>/<class>_001.jpg",
    must_exist="NWPU-RESISC45",
)
_RETINOPATHY = TfdsSet(
    "diabetic_retinopathy_detection/btgraham-300:3.0.0",
    gigabytes=4.0,
    by_hand="accept the rules of https://www.kaggle.com/c/"
    "diabetic-retinopathy-detection, download train.zip.001 to .005, test.zip.001 to "
    ".007 and trainLabels.csv.zip, join and unpack them so that there are "
    "{manual}/train/*.jpeg, {manual}/test/*.jpeg and {manual}/trainLabels.csv (over "
    "80 GB; without train.zip.005 the archive does not unpack)",
    must_exist="trainLabels.csv",
)
_CLEVR = TfdsSet("clevr:3.1.0", gigabytes=19.1)
_DSPRITES = TfdsSet("dsprites:2.0.0", gigabytes=0.5)
_SMALLNORB = TfdsSet("smallnorb:2.0.0", gigabytes=0.6)
# The paper's runs used 3.2.0. TFDS 4.9.10 reads it but generates 3.3.0 only, which
# differs in the names of one unused feature.
_KITTI = TfdsSet("kitti:3.3.0", also=("3.2.0",), gigabytes=6.3)

_CLEVR_SLICES: dict[str, Any] = {"val": "train[63000:63200]", "test": "validation"}
_DSPRITES_ROW: dict[str, Any] = {
    "tfds": _DSPRITES,
    "group": "structured",
    "num_classes": 16,
    "val": "train[589824:590024]",
    "test": "train[663552:]",
    "scale": 255,
}
_SMALLNORB_ROW = {
    "tfds": _SMALLNORB,
    "group": "structured",
    "val": "test[:200]",
    "test": "test[50%:]",
}

VTAB_1K = {
    "cifar100": VtabTask(
        TfdsSet("cifar100:3.0.2", gigabytes=0.2),
        "natural",
        num_classes=100,
        val="train[45000:45200]",
        prompt_lengths=(100, 10),
    ),
    # 101 objects and a background class. Some preparations hold one training image
    # less, so the validation images are counted from 90 % of what there is.
    "caltech101": VtabTask(
        TfdsSet("caltech101:3.0.2", gigabytes=0.2),
        "natural",
        num_classes=102,
        val="train[90%:]",
        prompt_lengths=(5, 10),
    ),
    "dtd": VtabTask(
        TfdsSet("dtd:3.0.1", gigabytes=0.7),
        "natural",
        num_classes=47,
        val="validation[:200]",
        prompt_lengths=(1, 10),
    ),
    "flowers102": VtabTask(
        TfdsSet("oxford_flowers102:2.1.1", gigabytes=0.4),
        "natural",
        num_classes=102,
        val="validation[:200]",
        prompt_lengths=(200, 1),
    ),
    # The paper's runs used 3.2.0, which TFDS 4.9.10 no longer has; 4.0.0 re-encodes a
    # few corrupt images.
    "pets": VtabTask(
        TfdsSet("oxford_iiit_pet:4.0.0", gigabytes=0.9),
        "natural",
        num_classes=37,
        val="train[2944:3144]",
        prompt_lengths=(50, 1),
    ),
    # The paper's runs used 3.0.0, which TFDS 4.9.10 no longer has.
    "svhn": VtabTask(
        TfdsSet("svhn_cropped:3.1.0", gigabytes=0.7),
        "natural",
        num_classes=10,
        val="train[65931:66131]",
        prompt_lengths=(200, 50),
    ),
    "sun397": VtabTask(
        _SUN397,
        "natural",
        num_classes=397,  # of which the 800 training images show 309
        val="validation[:200]",
        prompt_lengths=(1, 5),
    ),
    "patch_camelyon": VtabTask(
        TfdsSet("patch_camelyon:2.0.0", gigabytes=7.6),
        "specialized",
        num_classes=2,
        val="validation[:200]",
        prompt_lengths=(5, 100),
    ),
    "eurosat": VtabTask(
        _EUROSAT,
        "specialized",
        num_classes=10,
        val="train[16200:16400]",
        test="train[21600:]",
        prompt_lengths=(50, 100),
    ),
    "resisc45": VtabTask(
        _RESISC45,
        "specialized",
        num_classes=45,
        val="train[18900:19100]",
        test="train[25200:]",
        prompt_lengths=(50, 10),
    ),
    "retinopathy": VtabTask(
        _RETINOPATHY,
        "specialized",
        num_classes=5,
        val="validation[:200]",
        prompt_lengths=(10, 1),
    ),
    "clevr_count": VtabTask(
        _CLEVR,
        "structured",
        num_classes=8,
        **_CLEVR_SLICES,
        label=clevr_count,
        names=tuple(f"{n} objects" for n in range(3, 11)),
        prompt_lengths=(100, 50),
    ),
    "clevr_distance": VtabTask(
        _CLEVR,
        "structured",
        num_classes=6,
        **_CLEVR_SLICES,
        label=clevr_distance,
        names=("to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "over 10"),
        prompt_lengths=(200, 200),
    ),
    "dmlab": VtabTask(
        TfdsSet("dmlab:2.0.1", gigabytes=3.4),
        "structured",
        num_classes=6,
        val="validation[:200]",
        prompt_lengths=(100, 100),
    ),
    "kitti_distance": VtabTask(
        _KITTI,
        "structured",
        num_classes=4,
        val="validation[:200]",
        label=kitti_distance,
        names=("to 8 m", "8 to 20 m", "over 20 m", "no vehicle"),
        prompt_lengths=(100, 50),
    ),
    "dsprites_location": VtabTask(
        **_DSPRITES_ROW,
        label=dsprites_location,
        names=tuple(f"x {2 * n} to {2 * n + 1} of 32" for n in range(16)),
        prompt_lengths=(100, 10),
    ),
    "dsprites_orientation": VtabTask(
        **_DSPRITES_ROW,
        label=dsprites_orientation,
        names=tuple(f"orientation bin {n} of 16" for n in range(16)),
        prompt_lengths=(100, 50),
    ),
    "smallnorb_azimuth": VtabTask(
        **_SMALLNORB_ROW,
        num_classes=18,
        label=operator.itemgetter("label_azimuth"),
        names="label_azimuth",
        prompt_lengths=(200, 200),
    ),
    "smallnorb_elevation": VtabTask(
        **_SMALLNORB_ROW,
        num_classes=9,
        label=operator.itemgetter("label_elevation"),
        names="label_elevation",
        prompt_lengths=(200, 200),
    ),
}


TEST_IMAGES = {
    "cifar100": 10_000,
    "caltech101": 6_084,
    "dtd": 1_880,
    "flowers102": 6_149,
    "pets": 3_669,
    "svhn": 26_032,
    "sun397": 21_750,
    "patch_camelyon": 32_768,
    "eurosat": 5_400,
    "resisc45": 6_300,
    "retinopathy": 42_670,
    "clevr_count": 15_000,
    "clevr_distance": 15_000,
    "dmlab": 22_735,
    "kitti_distance": 711,
    "dsprites_location": 73_728,
    "dsprites_orientation": 73_728,
    "smallnorb_azimuth": 12_150,
    "smallnorb_elevation": 12_150,
}
"""Per task of VTAB-1k, as its own code counts them."""


def make_task(name: str, row: VtabTask) -> Task:
    """The task that a row describes."""
    parts = {"train": 800, "val": 200, "test": TEST_IMAGES.get(name, 0)}
    return Task(
        name=name,
        group=row.group,
        num_classes=row.num_classes,
        counts=parts if parts["test"] else None,
        prompt_lengths=row.prompt_lengths,
        part=functools.partial(_part, name, row),
        class_names=functools.partial(_class_names, name, row),
        tfds=row.tfds,
    )


def _part(name: str, row: VtabTask, part: str, data_dir: str | None) -> Source:
    builder = reading.open_builder(name, row.tfds, data_dir)
    source = reading.read_slice(builder, getattr(row, part), row.label, scale=row.scale)
    if part != "val":
        return source
    if len(source) < NUM_VAL:
        raise UserError(
            f"task {name}: {builder.data_path} has {len(source)} records in {row.val}, "
            f"but {NUM_VAL} are needed; prepare it again"
        )
    return source.select(range(NUM_VAL))


def _class_names(name: str, row: VtabTask, data_dir: str | None) -> tuple[str, ...]:
    if not isinstance(row.names, str):
        return row.names
    builder = reading.open_builder(name, row.tfds, data_dir)
    return tuple(builder.info.features[row.names].names)
