"""The Open Inference Protocol: what a request says, what it gets, what is refused."""

import base64
import json

import numpy as np
import pytest

from vpt_jax.serving import protocol
from vpt_jax.serving.protocol import Refused

TEXT = base64.b64encode(b"abc").decode()


def tensor(**changes):
    plain = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    return {**plain, **changes}


def body(*tensors, **more):
    return json.dumps({"inputs": list(tensors), **more}).encode()


def raw(*parts):
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def test_images_in_base64():
    found = protocol.parse(body(tensor(shape=[2, 1], data=[TEXT, TEXT]), id="7"), None)
    assert found.images == [b"abc", b"abc"]
    assert found.identity == "7"
    assert found.outputs == {"probabilities": False, "class": False}


def test_raw_images_behind_the_json():
    parts = raw(b"abc", b"", b"\xff")
    size = {"binary_data_size": len(parts)}
    text = body({"datatype": "BYTES", "shape": [3], "parameters": size})
    found = protocol.parse(text + parts, str(len(text)))
    assert found.images == [b"abc", b"", b"\xff"]


@pytest.mark.parametrize("is_raw", [False, True])
def test_pixels(is_raw):
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    about = {"datatype": "UINT8", "shape": list(pixels.shape)}
    if is_raw:
        text = body(about | {"parameters": {"binary_data_size": pixels.nbytes}})
        found = protocol.parse(text + pixels.tobytes(), str(len(text)))
    else:
        found = protocol.parse(body(about | {"data": pixels.ravel().tolist()}), None)
    np.testing.assert_array_equal(np.stack(found.images), pixels)


REFUSED = {
    "not JSON": b"{",
    "not text": b"\xff\xfe",
    "a list of one tensor": b"[]",
    "one tensor of images": body(tensor(), tensor()),
    "holds no image": body(tensor(shape=[0], data=[])),
    "must be base64 text": body(tensor(data=["?"])),
    "neither 'data' nor": body({"datatype": "BYTES", "shape": [1]}),
    "1 encoded images are given": body(tensor(shape=[2])),
    "give BYTES of shape": body(tensor(datatype="FP32")),
    r"shape \[-1\]; give": body(tensor(shape=[-1])),
    "whole numbers from 0 to 255": body(
        tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 256])
    ),
    "3 values are given": body(
        tensor(datatype="UINT8", shape=[1, 1, 2, 3], data=[1, 2, 3])
    ),
    "not of one shape": body(
        tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[[1], [2, 3]])
    ),
    "but 0 bytes follow": body(tensor(parameters={"binary_data_size": 9})),
    "no output 'logits'": body(tensor(), outputs=[{"name": "logits"}]),
    "no output None": body(tensor(), outputs="class"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_of_the_protocol_is_refused(message):
    content = REFUSED[message]
    with pytest.raises(Refused, match=message if message[:3] != "not" else "not ") as e:
        protocol.parse(content, None)
    assert e.value.status == 422


@pytest.mark.parametrize("header", ["-1", "9999", "x", "٣"])
def test_a_wrong_length_of_the_json_is_refused(header):
    with pytest.raises(Refused, match="must be a length of at most"):
        protocol.parse(body(tensor()), header)


def test_lengths_beyond_the_body_are_refused():
    parts = (100).to_bytes(4, "little") + b"abc"
    size = {"binary_data_size": len(parts)}
    text = body({"datatype": "BYTES", "shape": [1], "parameters": size})
    with pytest.raises(Refused, match="reach beyond the body"):
        protocol.parse(text + parts, str(len(text)))


def test_an_answer_is_text_or_raw():
    found = np.array([[0.25, 0.75], [1, 0]], np.float32)
    request = protocol.Request([], "x", {"probabilities": True, "class": False})
    content, headers = protocol.answer("pets", request, found, ("cat", "dög"))
    length = int(headers[protocol.HEADER])
    about = json.loads(content[:length])
    assert about["id"] == "x"
    assert about["model_name"] == "pets"
    first, second = about["outputs"]
    assert first["shape"] == [2, 2]
    assert first["parameters"] == {"binary_data_size": 16}
    assert content[length:] == found.tobytes()
    assert second["data"] == ["dög", "cat"]
    request = protocol.Request([], None, {"class": True})
    content, headers = protocol.answer("pets", request, found, ("cat", "dög"))
    assert content[int(headers[protocol.HEADER]) :] == raw("dög".encode(), b"cat")
    request = protocol.Request([], None, {"probabilities": False})
    content, headers = protocol.answer("pets", request, found, ("cat", "dög"))
    assert protocol.HEADER not in headers
    assert json.loads(content)["outputs"][0]["data"] == [0.25, 0.75, 1, 0]


def test_labels_are_numbers_of_classes():
    found = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    names = protocol.OUTPUTS[True]
    request = protocol.parse(body(tensor()), None, names)
    content, _ = protocol.answer("scenes", request, found, ("a", "b"))
    [labels] = json.loads(content)["outputs"]
    assert labels == {
        **{"name": "labels", "datatype": "UINT8", "shape": [2, 2, 3]},
        "data": list(range(12)),
    }
    request = protocol.Request([], None, {"labels": True})
    content, headers = protocol.answer("scenes", request, found, ("a", "b"))
    assert content[int(headers[protocol.HEADER]) :] == bytes(range(12))
    with pytest.raises(Refused, match="no output 'class'; there are: labels"):
        protocol.parse(body(tensor(), outputs=[{"name": "class"}]), None, names)
