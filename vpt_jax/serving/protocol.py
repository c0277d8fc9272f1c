"""The Open Inference Protocol v2 over HTTP: a request's bytes to images, and back.

Images come as `BYTES`, each an encoded file: base64 text in JSON, or raw with the
binary extension (four bytes of length before each, `Inference-Header-Content-Length`
says where they begin); or as `UINT8` pixels (n, h, w, 3), a list or raw. The answer has
`probabilities` (n, C) and `class` (n), or where each pixel gets a class `labels`
(n, h, w), 0 to C - 1; each raw where the request asks for that.

Source: open-inference-protocol 2 (rest and the binary tensor data extension as Triton
Inference Server documents it); base64 as MLServer reads it.
"""

import base64
import binascii
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float, UInt8

PROBABILITIES, CLASS, LABELS = "probabilities", "class", "labels"
OUTPUTS = {False: (PROBABILITIES, CLASS), True: (LABELS,)}  # by whether it is dense
HEADER = "inference-header-content-length"


class Refused(Exception):
    """A request that gets no answer.

    Attributes:
        status: Of HTTP.
        headers: To send along.
    """

    def __init__(self, status: int, message: str, headers: dict | None = None):
        super().__init__(message)
        self.status, self.headers = status, headers or {}


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        images: Encoded files, or pixels uint8 (h, w, 3).
        identity: The request's own, or None.
        outputs: Those that are wanted, and whether raw.
    """

    images: list[bytes | np.ndarray]
    identity: str | None
    outputs: dict[str, bool]


def parse(
    body: bytes, header: str | None, names: tuple[str, ...] = OUTPUTS[False]
) -> Request:
    """A request's body.

    Args:
        body: All of it.
        header: The value of the `HEADER`, if it has one.
        names: Of the outputs there are.

    Raises:
        Refused: 422, it is not as the protocol says.
    """
    length = len(body) if header is None else _number(header, len(body))
    try:
        content = json.loads(body[:length])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        _refuse(f"the request is not JSON: {error}")
    given = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        _refuse("the request needs 'inputs', a list of one tensor of images")
    images = _images(given[0], body[length:])
    if not images:
        _refuse("the input holds no image")
    identity = content.get("id")
    identity = None if identity is None else str(identity)
    return Request(images, identity, _outputs(content, names))


def _number(text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > most:
        _refuse(f"{HEADER} {text!r} must be a length of at most the body's, {most}")
    return int(text)


def _images(tensor: dict, raw: bytes) -> list[bytes | np.ndarray]:
    kind, shape = tensor.get("datatype"), _shape(tensor)
    size = _parameter(tensor, "binary_data_size")
    if size is not None and size != len(raw):
        _refuse(f"binary_data_size {size!r}, but {len(raw)} bytes follow the JSON")
    if kind == "BYTES" and shape and shape[1:] in ([], [1]):
        found = _base64(tensor) if size is None else _split(raw)
        if len(found) != shape[0]:
            _refuse(f"shape {shape}, but {len(found)} encoded images are given")
        return list(found)
    if kind == "UINT8" and len(shape) == 4 and shape[3] == 3:
        pixels = _pixels(tensor) if size is None else np.frombuffer(raw, np.uint8)
        if pixels.size != math.prod(shape) or 0 in shape:
            _refuse(f"shape {shape}, but {pixels.size} values are given")
        return list(pixels.reshape(shape))
    _refuse(
        f"an input of datatype {kind!r} and shape {tensor.get('shape')!r}; give BYTES "
        "of shape [n] (encoded images) or UINT8 of shape [n, height, width, 3]"
    )


def _shape(tensor: dict) -> list[int]:
    """Empty where it is none."""
    given: Any = tensor.get("shape")
    whole = isinstance(given, list) and all(type(n) is int and n >= 0 for n in given)
    return list(given) if whole else []


def _base64(tensor: dict) -> list[bytes]:
    data = tensor.get("data")
    if not isinstance(data, list):
        _refuse("the input has neither 'data' nor parameters.binary_data_size")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, TypeError, ValueError) as error:
        _refuse(
            f"BYTES in JSON must be base64 text ({error}); or send them raw, with the "
            "binary extension"
        )


def _split(raw: bytes) -> list[bytes]:
    """Elements that each follow their length, four bytes, the lowest first."""
    found, start = [], 0
    while start < len(raw):
        stop = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        if stop > len(raw):
            _refuse("the lengths of the raw BYTES reach beyond the body")
        found.append(raw[start + 4 : stop])
        start = stop
    return found


def _pixels(tensor: dict) -> np.ndarray:
    try:
        values = np.asarray(tensor.get("data"))
    except ValueError as error:
        _refuse(f"the data of UINT8 are not of one shape: {error}")
    whole = values.dtype.kind in "iu"
    if not whole or not values.size or values.min() < 0 or values.max() > 255:
        _refuse("the data of UINT8 must be whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _outputs(content: dict, names: tuple[str, ...]) -> dict[str, bool]:
    wanted: Any = content.get("outputs") or [{"name": name} for name in names]
    raw = bool(_parameter(content, "binary_data_output"))
    found = {}
    for output in wanted if isinstance(wanted, list) else [wanted]:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in names:
            _refuse(f"no output {name!r}; there are: {', '.join(names)}")
        own = _parameter(output, "binary_data")
        found[name] = raw if own is None else bool(own)
    return found


def _parameter(of: dict, name: str) -> Any:
    parameters = of.get("parameters")
    return parameters.get(name) if isinstance(parameters, dict) else None


def answer(
    model: str,
    request: Request,
    found: Float[np.ndarray, "n C"] | UInt8[np.ndarray, "n h w"],
    classes: tuple[str, ...],
) -> tuple[bytes, dict[str, str]]:
    """The body of the answer and its headers.

    Args:
        model: Its name.
        request: What was asked.
        found: Probabilities, or labels.
        classes: Their names.
    """
    outputs, raw = [], b""
    for name, is_raw in request.outputs.items():
        about, plain, packed = _tensor(name, found, classes)
        if is_raw:
            raw += (part := packed())
            about["parameters"] = {"binary_data_size": len(part)}
        else:
            about["data"] = plain()
        outputs.append({"name": name, **about})
    content = {"model_name": model, "model_version": "1", "outputs": outputs}
    if request.identity is not None:
        content["id"] = request.identity
    text = json.dumps(content).encode()
    if not any(request.outputs.values()):
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER: str(len(text))}
    return text + raw, headers


def _tensor(
    name: str, found: np.ndarray, classes: tuple[str, ...]
) -> tuple[dict, Callable[[], list], Callable[[], bytes]]:
    """An output: what it is, and its values as a list and raw."""
    if name == CLASS:
        names = [classes[k] for k in found.argmax(-1)]
        about = {"shape": [len(names)], "datatype": "BYTES"}
        return about, names.copy, lambda: b"".join(map(_packed, names))
    datatype, kind = ("UINT8", "u1") if name == LABELS else ("FP32", "<f4")
    about = {"shape": list(found.shape), "datatype": datatype}
    return about, found.ravel().tolist, lambda: found.astype(kind).tobytes()


def _packed(name: str) -> bytes:
    encoded = name.encode()
    return len(encoded).to_bytes(4, "little") + encoded


def metadata(name: str, num_classes: int, names: tuple[str, ...]) -> dict:
    """What the protocol asks of a model, whose outputs have these `names`."""
    known = {
        PROBABILITIES: {"datatype": "FP32", "shape": [-1, num_classes]},
        CLASS: {"datatype": "BYTES", "shape": [-1]},
        LABELS: {"datatype": "UINT8", "shape": [-1, -1, -1]},
    }
    return {
        "name": name,
        "versions": ["1"],
        "platform": "vpt_jax",
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [-1],
                "parameters": {"content_type": "base64"},
            }
        ],
        "outputs": [{"name": output, **known[output]} for output in names],
    }


def _refuse(message: str) -> NoReturn:
    raise Refused(422, message)
