"""Reading data that TensorFlow Datasets (TFDS) prepared, without TensorFlow.

TFDS reads ArrayRecord files and decodes their images with Pillow, in NumPy alone.
`tensorflow_datasets` is imported where it is used: tasks that need no files on disk
do not pay for it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError


def open_builder(task: str, tfds_name: str, data_dir: str | None):
    """The TFDS builder of a data set that is already prepared.

    Args:
      task: the task's name, for the error message.
      tfds_name: TFDS name and version, e.g. 'cifar100:3.*.*'.
      data_dir: the TFDS directory; None for its default, ~/tensorflow_datasets.

    Raises:
      UserError: nothing is prepared there, or in a format that cannot be read.
    """
    import tensorflow_datasets as tfds

    # A shell leaves the ~ of --config.data.dir=~/data as it is.
    directory = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.builder(tfds_name, data_dir=directory)
        prepared = builder.data_path.exists() and bool(builder.info.splits)
    except (AssertionError, tfds.core.DatasetNotFoundError):
        prepared = False  # no such data set or version, in the code or on disk
    if not prepared:
        raise UserError(
            f"task {task}: {tfds_name} is not prepared in {directory}; prepare it "
            f"where TensorFlow is installed with `tfds build "
            f"{tfds_name.split(':')[0]} --file_format=array_record "
            f"--data_dir={directory}`, or give config.data.dir"
        )
    readable = tfds.core.FileFormat.with_random_access()
    if not readable & builder.info.available_file_formats():
        raise UserError(
            f"task {task}: {builder.data_path} holds {builder.info.file_format.value} "
            f"files, which cannot be read by index and must be converted to "
            f"array_record: `tfds convert_format --dataset_version_dir="
            f"{builder.data_path} --out_file_format=array_record` (needs TensorFlow)"
        )
    return builder


def read_examples(
    builder,
    slice_spec: str,
    *,
    image_key: str,
    label: Callable[[Mapping[str, Any]], int],
    limit: int | None = None,
) -> Examples:
    """Reads a slice of a split in the order on disk, record by record.

    Args:
      builder: from `open_builder`.
      slice_spec: a TFDS slice, e.g. 'train[45000:45200]'.
      image_key: the feature that holds the image.
      label: the class of a decoded record.
      limit: read only so many records, from the first; None for all.

    Returns:
      Examples whose ids are 'name/split/index', the index counted in the whole split.
    """
    split, start = _split_and_start(builder, slice_spec)
    source = builder.as_data_source(slice_spec)
    count = len(source) if limit is None else min(limit, len(source))
    images, labels, ids = [], [], []
    for position in range(count):
        index = start + position
        try:
            record = source[position]
        # array_record, protobuf and Pillow each raise their own for a damaged file
        except Exception as error:
            raise UserError(
                f"{builder.data_path}: cannot read record {index} of split {split!r} "
                f"({type(error).__name__}: {error}); the files are incomplete or "
                f"damaged, prepare them again"
            ) from error
        images.append(record[image_key])
        labels.append(label(record))
        ids.append(f"{builder.name}/{split}/{index:06d}")
    return Examples.from_images(images, labels, ids)


def _split_and_start(builder, slice_spec: str) -> tuple[str, int]:
    """The split that a slice takes from and the index of its first record there."""
    import tensorflow_datasets as tfds

    instruction = tfds.core.ReadInstruction.from_spec(slice_spec)
    try:
        [absolute] = instruction.to_absolute(builder.info.splits)
    except ValueError as error:
        raise UserError(
            f"{builder.data_path}: there is no {slice_spec} ({error})"
        ) from error
    return absolute.splitname, absolute.from_ or 0
