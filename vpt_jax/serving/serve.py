"""Put exports into a bank, and serve it until told to stop."""

import pathlib
import socket

import uvicorn

from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.serving import app
from vpt_jax.serving.bank import Bank


def serve(
    bank: Bank,
    host: str,
    port: int,
    window: float,
    repository: pathlib.Path | None,
) -> None:
    """Answer requests until SIGTERM or SIGINT; what was accepted is answered first.

    Args:
        bank: The tasks.
        host, port: Where to listen; port 0: any that is free.
        window: Seconds, see `app.make`.
        repository: See `app.make`.

    Raises:
        UserError: The address cannot be listened at.
    """
    say(f"compiling for batches of up to {bank.max_batch} images")
    bank.compile()
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    say(f"{len(bank.tasks)} tasks on {bank.backbone}: {url}")
    config = uvicorn.Config(
        app.make(bank, window, repository=repository),
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port}: {error}; choose another --port"
        ) from error
