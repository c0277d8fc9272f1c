"""A bank over HTTP: the Open Inference Protocol v2, metrics, and a page."""

import asyncio
import contextlib
import functools
import logging
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import vpt_jax
from vpt_jax.data.images import OversizedError, decode_image
from vpt_jax.errors import UserError
from vpt_jax.serving import page, protocol
from vpt_jax.serving.bank import Bank
from vpt_jax.serving.batcher import Batcher, Room
from vpt_jax.serving.exported import exports_below
from vpt_jax.serving.metrics import Metrics
from vpt_jax.serving.protocol import Refused
from vpt_jax.serving.tasks import Task, View
from vpt_jax.storage.paths import Folder

MAX_BYTES = 32_000_000  # of a request
READ_SECONDS = 30  # that a client may take to send one
BYTES_ROOM = 16 * MAX_BYTES  # of all requests that are being read
THREADS = 4  # that decode
DENSE_ROOM = 32  # images' room that one takes whose every pixel gets a class
DENSE_PIXELS, DENSE_ASPECT = 25_000_000, 8  # of such an image, at most


class Service:
    """What the routes share.

    Attributes:
        bank: The tasks.
        repository: The folder whose exports may be loaded by request; None: none.
        metrics: What is counted.
        batcher: Runs pairs of a task and a view.
    """

    def __init__(
        self, bank: Bank, window: float, room: int, repository: pathlib.Path | None
    ):
        self.bank, self.repository = bank, repository
        self.metrics = Metrics(bank)
        self.batcher = Batcher(self._run, bank.max_batch, window)
        self.images = Room(room, "images")
        self.bytes = Room(BYTES_ROOM, "bytes")
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        self.changes = asyncio.Lock()  # one task is loaded at a time

    def task(self, request: Request) -> Task:
        """The one that an address names.

        Raises:
            Refused: 404, and which there are.
        """
        try:
            return self.bank.task(request.path_params["name"])
        except UserError as error:
            raise Refused(404, str(error)) from error

    async def in_thread(self, work: Callable, *arguments):
        """What `work` gives, while other requests go on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, work, *arguments)

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """All of a request's body; counted as long as the block runs.

        Raises:
            Refused: 413, 408 or 503: too long, too slow, or too much at once.
        """
        given = request.headers.get("content-length", "")
        length = int(given) if given.isdigit() else MAX_BYTES
        if length > MAX_BYTES:
            raise Refused(413, f"{length} bytes; at most {MAX_BYTES} are read")
        with self.bytes.take(length):
            parts, size = [], 0
            try:
                async with asyncio.timeout(READ_SECONDS):
                    async for part in request.stream():
                        size += len(part)
                        if size > MAX_BYTES:
                            raise Refused(413, f"more than {MAX_BYTES} bytes")
                        parts.append(part)
            except TimeoutError as error:
                message = f"the body did not arrive within {READ_SECONDS} s"
                raise Refused(408, message, {"connection": "close"}) from error
            yield b"".join(parts)

    async def predict(
        self, pairs: list[tuple[Task, bytes | np.ndarray]]
    ) -> list[np.ndarray]:
        """What the bank makes of images, each for a task, in batches with others.

        Raises:
            Refused: 413 or 415 of an image, 503 where there are too many.
        """
        room = sum(DENSE_ROOM if task.dense else 1 for task, _ in pairs)
        with self.images.take(room):
            views = [self.in_thread(_view, n, *pair) for n, pair in enumerate(pairs)]
            seen = await asyncio.gather(*views)
            tasks = [task for task, _ in pairs]
            return await self.batcher.ask(list(zip(tasks, seen, strict=True)))

    def _run(self, asked: list) -> list:
        started = time.perf_counter()
        found = self.bank.run(asked)
        self.metrics.batch(len(asked), time.perf_counter() - started)
        return found


def make(
    bank: Bank,
    window: float = 0.002,
    room: int = 1024,
    repository: pathlib.Path | None = None,
) -> Starlette:
    """The application.

    Args:
        bank: With the tasks, compiled.
        window: Seconds that an image waits for others to join its batch.
        room: Images that may be on their way at once.
        repository: A folder whose exports may be loaded and unloaded by request; None:
            none may.
    """
    service = Service(bank, window, room, repository)

    def route(path: str, endpoint: Callable, method: str = "GET") -> Route:
        return Route(
            path, functools.partial(_answer, service, endpoint), methods=[method]
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)
        service.threads.shutdown()

    model = "/v2/models/{name}"
    return Starlette(
        lifespan=lifespan,
        routes=[
            route("/v2", _server),
            route("/v2/health/live", _healthy),
            route("/v2/health/ready", _healthy),
            *(
                route(start + end, endpoint, method)
                for start in (model, model + "/versions/1")
                for end, endpoint, method in (
                    ("", _model, "GET"),
                    ("/ready", _model_ready, "GET"),
                    ("/infer", _infer, "POST"),
                )
            ),
            route("/v2/repository/index", _index, "POST"),
            route("/v2/repository/models/{name}/load", _load, "POST"),
            route("/v2/repository/models/{name}/unload", _unload, "POST"),
            route("/metrics", _metrics),
            *page.routes(route),
        ],
    )


async def _answer(service: Service, endpoint: Callable, request: Request) -> Response:
    """What an endpoint gives, or why it does not."""
    started = time.perf_counter()
    try:
        response = await endpoint(service, request)
    except Refused as error:
        response = JSONResponse({"error": str(error)}, error.status, error.headers)
    except ClientDisconnect:
        response = Response(status_code=499)  # nobody reads it
    except Exception:  # ours; the next request is answered all the same
        logging.exception("%s failed", request.url.path)
        response = JSONResponse({"error": "internal error; see the server's log"}, 500)
    name = request.path_params.get("name", "")
    known = name if name in service.bank.tasks else ""  # others would never end
    service.metrics.request(known, response.status_code, time.perf_counter() - started)
    return response


async def _server(service: Service, _: Request) -> Response:
    extensions = ["binary_tensor_data"]
    if service.repository is not None:
        extensions.append("model_repository")
    return JSONResponse(
        {"name": "vpt_jax", "version": vpt_jax.__version__, "extensions": extensions}
    )


async def _healthy(_: Service, request: Request) -> Response:
    """'live' and 'ready' alike: it listens only when every network is compiled."""
    return JSONResponse({request.url.path.rpartition("/")[2]: True})


async def _model(service: Service, request: Request) -> Response:
    task = service.task(request)
    outputs = protocol.OUTPUTS[task.dense]
    found = protocol.metadata(task.name, len(task.classes), outputs)
    return JSONResponse(found | {"parameters": page.described(service.bank, task)})


async def _model_ready(service: Service, request: Request) -> Response:
    return JSONResponse({"name": service.task(request).name, "ready": True})


async def _infer(service: Service, request: Request) -> Response:
    task = service.task(request)
    async with service.body(request) as body:
        header = request.headers.get(protocol.HEADER)
        outputs = protocol.OUTPUTS[task.dense]
        asked = await service.in_thread(protocol.parse, body, header, outputs)
    found = await service.predict([(task, image) for image in asked.images])
    if len({one.shape for one in found}) > 1:
        raise Refused(422, "labels are one tensor: ask for images of one size at once")
    content, headers = await service.in_thread(
        protocol.answer, task.name, asked, np.stack(found), task.classes
    )
    service.metrics.images(task.name, len(found))
    return Response(content, headers=headers)


async def _index(service: Service, _: Request) -> Response:
    loaded = set(service.bank.tasks)
    names = set(await asyncio.to_thread(_available, service.repository))
    return JSONResponse(
        [
            {
                "name": name,
                "version": "1",
                "state": "READY" if name in loaded else "UNAVAILABLE",
                "reason": "",
            }
            for name in sorted(names | loaded)
        ]
    )


async def _load(service: Service, request: Request) -> Response:
    repository, name = _repository(service), request.path_params["name"]
    async with service.changes:
        # Names that the folder has: no path comes from a request.
        found = await asyncio.to_thread(_available, repository)
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise Refused(404, f"no {name!r} in the repository; there are: {known}")

        def load() -> None:
            task = service.bank.read(name, found[name])
            task.shelf.compile()
            service.bank.add(task)

        try:
            await asyncio.to_thread(load)
        except UserError as error:
            raise Refused(422, str(error)) from error
    return JSONResponse({})


async def _unload(service: Service, request: Request) -> Response:
    _repository(service)
    service.task(request)
    service.bank.unload(request.path_params["name"])
    return JSONResponse({})


def _repository(service: Service) -> pathlib.Path:
    if service.repository is None:
        raise Refused(403, "start the server with --repository FOLDER to allow this")
    return service.repository


def _available(repository: pathlib.Path | None) -> dict[str, Folder]:
    """The exports that may be loaded, by name."""
    try:
        return exports_below(repository) if repository else {}
    except UserError:
        return {}


async def _metrics(service: Service, _: Request) -> Response:
    content, kind = service.metrics.text(service.images.taken)
    return Response(content, headers={"content-type": kind})


def _view(number: int, task: Task, image: bytes | np.ndarray) -> View:
    """An image as its task sees it.

    Raises:
        Refused: 413 or 415, which image and why.
    """
    if isinstance(image, bytes):
        try:
            image = decode_image(image)
        except OversizedError as error:
            raise Refused(413, f"image {number}: {error}") from error
        except UserError as error:
            raise Refused(415, f"image {number} {error}") from error
    if task.dense:
        _check_size(number, *image.shape[:2])
    return task.view(image)


def _check_size(number: int, height: int, width: int) -> None:
    """Raise Refused where the windows of an image, or its labels, would be too many."""
    long, short = max(height, width), min(height, width)
    if height * width > DENSE_PIXELS or long > DENSE_ASPECT * short:
        raise Refused(
            413,
            f"image {number}: {width} x {height}; {DENSE_PIXELS} pixels at most get a "
            f"class each, of an image at most {DENSE_ASPECT} times as long as wide",
        )
