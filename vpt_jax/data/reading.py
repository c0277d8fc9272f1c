"""Reading data that TensorFlow Datasets (TFDS) prepared, without TensorFlow.

TFDS finds ArrayRecord files and parses their records in NumPy alone. Images are
decoded here, by Pillow: TFDS would take OpenCV where that is installed, whose JPEG
pixels differ. `tensorflow_datasets` is imported where it is used: tasks that need no
files on disk do not pay for it.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from vpt_jax.data.examples import Image, Indices, Source
from vpt_jax.data.images import decode_image
from vpt_jax.errors import UserError
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.paths import located


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """A TFDS data set that tasks read.

    Attributes:
      name: TFDS name, config and version, e.g. 'eurosat/rgb:2.0.0'.
      also: other versions with the same examples in the same order, read where they
        are what is prepared.
      gigabytes: of disk for the prepared files, 10^9 bytes.
      by_hand: files that cannot be downloaded: what to put where; '{manual}' stands
        for TFDS's directory of such files.
      must_exist: a file or folder of that directory without which preparation fails;
        None if the download is only known to be unreliable.
    """

    name: str
    also: tuple[str, ...] = ()
    gigabytes: float = 0.0
    by_hand: str | None = None
    must_exist: str | None = None


READY, MISSING, UNFINISHED, CONVERT = "ready", "missing", "unfinished", "convert"


def directory(data_dir: str | None) -> str:
    """The TFDS directory; None for TFDS's own default."""
    from tensorflow_datasets.core import constants

    # A shell leaves the ~ of --config.data.dir=~/data as it is.
    return os.fspath(located(os.path.expanduser(data_dir or constants.DATA_DIR)))


def find(tfds_set: TfdsSet, data_dir: str | None) -> tuple[str, Any]:
    """Looks for a prepared data set.

    Returns:
      A state and a TFDS builder. READY: its files can be read. CONVERT: there are
      files, in a format that cannot be read by index. UNFINISHED: its folder exists
      but no finished preparation lies there. MISSING: nothing. The builder is None
      where neither TFDS nor the disk knows the name.

    Raises:
      UserError: damaged metadata, or code that needs a package which is not there.
    """
    import tensorflow_datasets as tfds
    from google.protobuf import json_format
    from tensorflow_datasets.core import dataset_info

    where = directory(data_dir)
    name = tfds_set.name.partition(":")[0]
    names = [tfds_set.name, *(f"{name}:{version}" for version in tfds_set.also)]
    builders = []
    for candidate in names:
        try:
            builder = tfds.builder(candidate, data_dir=where)
            if builder.data_path.exists() and builder.info.splits:
                readable = tfds.core.FileFormat.with_random_access()
                ready = readable & builder.info.available_file_formats()
                return (READY if ready else CONVERT), builder
        except (AssertionError, ValueError, tfds.core.DatasetNotFoundError):
            continue  # no such data set, config or version, in the code or on disk
        except (dataset_info.DatasetInfoFileError, json_format.ParseError) as error:
            raise UserError(
                f"the metadata of {candidate} in {where} cannot be read, as after an "
                f"interrupted copy ({error}); delete its folder and run --mode prepare"
            ) from error
        except ImportError as error:
            raise UserError(
                f"TFDS set {candidate} cannot be used without a Python package that is "
                f"not installed (pip install 'vpt_jax[prepare]'): {error}"
            ) from error
        builders.append(builder)
    if not builders:
        return MISSING, None
    unfinished = [builder for builder in builders if builder.data_path.exists()]
    return (UNFINISHED, unfinished[0]) if unfinished else (MISSING, builders[0])


def open_builder(task: str, tfds_set: TfdsSet, data_dir: str | None) -> Any:
    """The TFDS builder of a data set that is already prepared.

    Args:
      task: the task's name, for the error message.
      tfds_set: which data set.
      data_dir: the TFDS directory; None for its default, ~/tensorflow_datasets.

    Raises:
      UserError: nothing is prepared there, or in a format that cannot be read.
    """
    import tensorflow_datasets as tfds

    state, builder = find(tfds_set, data_dir)
    if state == READY:
        local = at_hand(builder.data_path)  # shards are read by index, as files
        same = local == pathlib.Path(builder.data_path)
        return builder if same else tfds.builder_from_directory(local)
    if state == CONVERT:
        raise UserError(
            f"task {task}: {builder.data_path} holds {builder.info.file_format.value} "
            f"files, which cannot be read by index and must be converted to "
            f"array_record: `--mode prepare --config CONFIG "
            f"--config.data.dir={directory(data_dir)}` does it"
        )
    where = directory(data_dir)
    raise UserError(
        f"task {task}: {tfds_set.name} is not prepared in {where}{_others(builder)}; "
        f"prepare it with `--mode prepare --config CONFIG "
        f"--config.data.dir={where}` where TensorFlow is installed, or give the right "
        f"--config.data.dir"
    )


def missing_shards(builder) -> list[str]:
    """Files that the metadata of a prepared data set names and that are not there."""
    return [
        path.name
        for split in builder.info.splits.values()
        for path in map(type(builder.data_path), split.filepaths)
        if not path.exists()
    ]


@dataclasses.dataclass(frozen=True)
class Records(Source):
    """Records of one split of a prepared data set.

    Attributes:
      builder: from `open_builder`.
      split: e.g. 'train'.
      indices: which records, counted in the whole split.
      label: the class of a record; it sees all features but images.
      image_key: the feature that holds the image.
      scale: pixels are multiplied by it.
    """

    builder: Any
    split: str
    indices: Int[np.ndarray, " n"]
    label: Callable[[Mapping[str, Any]], int]
    image_key: str = "image"
    scale: int = 1

    def __len__(self) -> int:
        return len(self.indices)

    def __reduce__(self):
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return type(self), tuple(fields)  # without open files

    @property
    def ids(self) -> tuple[str, ...]:
        """'name/split/index', the index counted in the whole split."""
        return tuple(f"{self.builder.name}/{self.split}/{i:06d}" for i in self.indices)

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """One pass over the records; their images are not decoded."""
        return self._labels

    @functools.cached_property
    def _labels(self) -> Int32[np.ndarray, " n"]:
        import tensorflow_datasets as tfds

        features = self.builder.info.features.items()
        keys = [k for k, f in features if not isinstance(f, tfds.features.Image)]
        parser = self._parser(keys)
        labels = [self.label(self._record(int(i), parser)) for i in self.indices]
        return np.asarray(labels, np.int32)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`; UserError names a record that cannot be read."""
        self._check_feature()
        parser = self._parser([self.image_key])
        return [self._image(int(self.indices[index]), parser) for index in indices]

    def select(self, indices: Indices) -> "Records":
        """See `Source`."""
        chosen = self.indices[np.asarray(indices, np.int64)]
        return dataclasses.replace(self, indices=chosen)

    @functools.cached_property
    def _files(self):
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return self.builder.as_data_source(self.split, deserialize_method=raw)

    def _parser(self, keys: Iterable[str]):
        """The given features alone: what is not asked for is not decoded."""
        import tensorflow_datasets as tfds

        features = self.builder.info.features
        return tfds.features.FeaturesDict({key: features[key] for key in keys})

    def _record(self, index: int, parser) -> Mapping[str, Any]:
        with self._damage(index):
            return parser.deserialize_example_np(self._files[index])

    def _image(self, index: int, parser) -> Image:
        with self._damage(index):
            image = decode_image(self._encoded(index, parser, self.image_key))
        return image if self.scale == 1 else image * np.uint8(self.scale)

    def encoded(self, indices: Indices, key: str) -> list[bytes]:
        """The content of the image files that a feature has for these numbers."""
        parser, found = self._parser([key]), []
        for index in self.indices[np.asarray(indices, np.int64)].tolist():
            with self._damage(index):
                found.append(self._encoded(index, parser, key))
        return found

    def _encoded(self, index: int, parser, key: str) -> bytes:
        import tensorflow_datasets as tfds

        skip = {key: tfds.decode.SkipDecoding()}
        raw = self._files[index]
        return parser.deserialize_example_np(raw, decoders=skip)[key]

    @contextlib.contextmanager
    def _damage(self, index: int) -> Iterator[None]:
        try:
            yield
        # array_record, protobuf and Pillow each raise their own for a damaged file
        except Exception as error:
            raise UserError(
                f"{self.builder.data_path}: cannot read record {index} of split "
                f"{self.split!r} ({type(error).__name__}: {error}); the files are "
                f"incomplete or damaged, prepare them again"
            ) from error

    def _check_feature(self) -> None:
        feature = self.builder.info.features[self.image_key]
        if feature.np_dtype != np.uint8 or feature.shape[-1] not in (1, 3):
            raise UserError(
                f"{self.builder.name}: {self.image_key!r} is {feature}; images must be "
                f"uint8 with 1 or 3 channels"
            )


def read_slice(
    builder,
    slice_spec: str,
    label: Callable[[Mapping[str, Any]], int],
    *,
    image_key: str = "image",
    scale: int = 1,
) -> Records:
    """The records of a TFDS slice, e.g. 'train[45000:45200]', in the order on disk."""
    import tensorflow_datasets as tfds

    instruction = tfds.core.ReadInstruction.from_spec(slice_spec)
    try:
        [absolute] = instruction.to_absolute(builder.info.splits)
    except ValueError as error:
        raise UserError(
            f"{builder.data_path}: there is no {slice_spec} ({error})"
        ) from error
    count = builder.info.splits[absolute.splitname].num_examples
    start, stop = absolute.from_ or 0, count if absolute.to is None else absolute.to
    indices = np.arange(start, stop)
    return Records(builder, absolute.splitname, indices, label, image_key, scale)


def _others(builder) -> str:
    """' (there are versions ...)' where other versions lie beside a missing one."""
    if builder is None or not builder.data_path.parent.exists():
        return ""
    names = [p.name for p in builder.data_path.parent.iterdir() if p.is_dir()]
    versions = sorted(n for n in names if n[:1].isdigit() and n.count(".") == 2)
    versions = [n for n in versions if n != builder.data_path.name]
    return f" (there is version {', '.join(versions)})" if versions else ""
