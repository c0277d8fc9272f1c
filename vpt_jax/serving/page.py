"""The page of a server: drop an image, see what every task makes of it that gives an
image one class."""

import base64
import functools
import importlib.resources
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image as PillowImage
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vpt_jax import data, methods
from vpt_jax.data.examples import Source
from vpt_jax.data.images import decode_image
from vpt_jax.errors import UserError
from vpt_jax.serving.attention import of_task
from vpt_jax.serving.bank import Bank
from vpt_jax.serving.protocol import Refused
from vpt_jax.serving.tasks import Task
from vpt_jax.types import count

EXAMPLES = 24  # of a task that are offered
SHOWN = 5  # classes of each task
KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:",
    "x-content-type-options": "nosniff",
}


def routes(route: Callable[..., Route]) -> Iterator[Route]:
    """Of the page and what it asks for."""
    yield route("/", functools.partial(_asset, "index.html"))
    for name in KINDS:
        yield route(f"/{name}", functools.partial(_asset, name))
    yield route("/api/tasks", _tasks)
    yield route("/api/classify", _classify, "POST")
    yield route("/api/attention/{name}", _attention, "POST")
    yield route("/api/examples/{name}", _examples)
    yield route("/api/examples/{name}/{number:int}", _example)


def described(bank: Bank, task: Task) -> dict:
    """What is said of a task."""
    manifest, network = task.manifest, task.network
    options = dict(manifest["config"]["method"])
    backbone = manifest["backbone"]
    objective = network.objective
    return {
        "task": manifest["config"]["task"],
        "method": methods.label(options.pop("name"), options, backbone),
        "backbone": backbone,
        "checkpoint_sha256": manifest["checkpoint_sha256"],
        "classes": list(task.classes),
        "tuned_bytes": 4 * task.size,
        "tuned_percent": 100 * task.size / (task.size + count(network.parts[2])),
        "test": manifest["metrics"].get(objective.METRIC),
        "metric": objective.LABEL,
        "unit": objective.UNIT,
    }


async def _asset(name: str, *_) -> Response:
    content = importlib.resources.files("vpt_jax.assets").joinpath("page", name)
    headers = HEADERS | {"content-type": KINDS[name]}
    return Response(content.read_bytes(), headers=headers)


async def _tasks(service, _: Request) -> Response:
    bank = service.bank
    about = {task.name: described(bank, task) for task in _shown(bank)}
    size = sum(x.nbytes for x in bank.weights())
    return JSONResponse(
        {"backbone": bank.backbone, "backbone_bytes": size, "tasks": about}
    )


async def _classify(service, request: Request) -> Response:
    """One image for every task, in one pass."""
    tasks = _shown(service.bank)
    async with service.body(request) as body:
        image = await service.in_thread(_decoded, body)
        found = await service.predict([(task, image) for task in tasks])
    return JSONResponse(
        {
            task.name: [
                {"class": task.classes[k], "probability": float(one[k])}
                for k in np.argsort(-one)[:SHOWN]
            ]
            for task, one in zip(tasks, found, strict=True)
        }
    )


async def _attention(service, request: Request) -> Response:
    """Where CLS looks, of the backbone alone and as it was tuned."""
    task = _asked(service, request)
    async with service.body(request) as body:
        found = await service.in_thread(_looks, task, body)
    return JSONResponse(found)


async def _examples(service, request: Request) -> Response:
    task = _asked(service, request)
    source = await service.in_thread(_source, task)
    names = [task.classes[label] for label in source.labels]
    return JSONResponse({"labels": names})


async def _example(service, request: Request) -> Response:
    task, number = _asked(service, request), request.path_params["number"]
    source = await service.in_thread(_source, task)
    if number >= len(source):
        raise Refused(404, f"no example {number}; there are {len(source)}")
    [image] = await service.in_thread(source.read, [number])
    return Response(_png(image), headers={"content-type": "image/png"})


def _shown(bank: Bank) -> list[Task]:
    return [task for task in bank.tasks.values() if not task.dense]


def _asked(service, request: Request) -> Task:
    task = service.task(request)
    if task.dense:
        raise Refused(404, f"{task.name} gives each pixel a class, which no page shows")
    return task


def _decoded(body: bytes) -> np.ndarray:
    try:
        return decode_image(body)
    except UserError as error:
        raise Refused(415, f"the image {error}") from error


def _looks(task: Task, body: bytes) -> dict:
    view = task.view(_decoded(body))
    assert isinstance(view, np.ndarray)  # `_asked` lets no other task through
    found = of_task(task, view)
    if found is None:
        raise Refused(404, f"{task.name}: its backbone has no attention of a CLS token")
    seen = base64.b64encode(_png(np.clip(np.rint(view), 0, 255).astype(np.uint8)))
    plain, tuned = (rows.tolist() for rows in found)
    image = f"data:image/png;base64,{seen.decode()}"
    return {"image": image, "plain": plain, "tuned": tuned}


def _source(task: Task) -> Source:
    """Test images of the task, where its data are at hand."""
    config = task.manifest["config"]
    try:
        return _load(config["task"], config["data"]["dir"])
    except (UserError, OSError) as error:
        raise Refused(404, f"no examples of {task.name}: {error}") from error


@functools.lru_cache(32)
def _load(name: str, where: str | None) -> Source:
    return data.get_task(name, where).load("test", where, limit=EXAMPLES)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "PNG")
    return file.getvalue()
