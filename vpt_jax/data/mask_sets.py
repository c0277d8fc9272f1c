"""Public data sets with masks: ADE20K from its original folder, others from TFDS.

    ade20k            150 classes; its validation images test, as everywhere
    oxford_iiit_pet   pet, background, border
    cityscapes        the 19 classes that are scored; validation images test

A tenth of the training images validates, as they are in none of these for that.
ADE20K is not taken from TFDS, whose `scene_parse150` packs instances into its masks.
"""

import functools
import pathlib

from vpt_jax.data import mask_folder, reading
from vpt_jax.data.masks import MaskFiles, MaskRecords, Numbers
from vpt_jax.data.reading import TfdsSet
from vpt_jax.data.tasks import Task
from vpt_jax.data.tfds_task import hold_out
from vpt_jax.errors import UserError
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.paths import located

ADE = Numbers(tuple(range(1, 151)), (0,))
ADE_FOLDER = "ADEChallengeData2016"
ADE_WANTED = (
    "download ADEChallengeData2016.zip (0.9 GB) from "
    "http://data.csail.mit.edu/places/ADEchallenge and unpack it in this folder"
)
PET = Numbers((1, 2, 3))
SCORED = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)  # Cityscapes' `trainId`s
CITYSCAPES = Numbers(SCORED, tuple(n for n in range(35) if n not in SCORED))
CITYSCAPES_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light"),
    *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car"),
    *("truck", "bus", "train", "motorcycle", "bicycle"),
)
PETS_SET = TfdsSet("oxford_iiit_pet:4.0.0", gigabytes=0.9)
CITYSCAPES_SET = TfdsSet(
    "cityscapes/semantic_segmentation:1.0.0",
    gigabytes=11.0,
    by_hand="get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
    "https://www.cityscapes-dataset.com (with an account) and put them, unopened, into "
    "{manual}",
    must_exist="leftImg8bit_trainvaltest.zip",
)


def ade20k() -> Task:
    """The task 'ade20k'."""
    return Task(
        name="ade20k",
        group="masks",
        kind="segmentation",
        num_classes=len(ADE.classes),
        part=_ade_part,
        class_names=_ade_names,
        counts={"train": 18_189, "val": 2_021, "test": 2_000},
        manual=ADE_WANTED,
        folder=_ade_root,
        numbers=ADE.classes,
    )


def _ade_root(data_dir: str | None) -> pathlib.Path | None:
    where = located(reading.directory(data_dir))
    places = [place for place in (where / ADE_FOLDER, where) if _is_ade(place)]
    return at_hand(places[0]) if places else None


def _is_ade(place) -> bool:
    return (place / "annotations" / "validation").is_dir()


def _ade_part(part: str, data_dir: str | None) -> MaskFiles:
    root = _ade_root(data_dir)
    if root is None:
        raise UserError(
            f"task ade20k: {reading.directory(data_dir)} holds no {ADE_FOLDER}; "
            f"{ADE_WANTED} (or give another --config.data.dir)"
        )
    return mask_folder.split(root, part, ADE)


def _ade_names(data_dir: str | None) -> tuple[str, ...]:
    """The first name of each line of the release's list."""
    root = _ade_root(data_dir)
    file = None if root is None else root / "objectInfo150.txt"
    if file is None or not file.is_file():
        return tuple(map(str, ADE.classes))
    _, *lines = file.read_text().splitlines()
    return tuple(x.split("\t")[-1].partition(",")[0].strip() for x in lines if x)


def _from_tfds(
    name: str, tfds_set: TfdsSet, numbers: Numbers, names: tuple[str, ...], **keys
) -> Task:
    read = functools.partial(_tfds_part, name, tfds_set, numbers, keys)
    return Task(
        name=name,
        group="masks",
        kind="segmentation",
        num_classes=len(names),
        part=read,
        class_names=lambda data_dir: names,
        tfds=tfds_set,
        numbers=numbers.classes,
    )


def _tfds_part(name, tfds_set, numbers, keys, part: str, data_dir: str | None):
    builder = reading.open_builder(name, tfds_set, data_dir)
    splits = builder.info.splits
    # Cityscapes' test images have no public masks.
    tests = "validation" if "validation" in splits else "test"
    records = reading.read_slice(
        builder,
        tests if part == "test" else "train",
        label=lambda record: 0,
        image_key=keys["image"],
    )
    found = MaskRecords(
        *(builder, records.split, records.indices, records.label),
        image_key=keys["image"],
        mask_key=keys["mask"],
        numbers=numbers,
    )
    return found if part == "test" else hold_out(found, part, (0,))


TASKS = {
    "ade20k": ade20k,
    "oxford_iiit_pet": functools.partial(
        *(_from_tfds, "oxford_iiit_pet", PETS_SET, PET),
        ("pet", "background", "border"),
        image="image",
        mask="segmentation_mask",
    ),
    "cityscapes": functools.partial(
        *(_from_tfds, "cityscapes", CITYSCAPES_SET, CITYSCAPES, CITYSCAPES_NAMES),
        image="image_left",
        mask="segmentation_label",
    ),
}
