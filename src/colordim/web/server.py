"""The server of the viewer: its routes, and running it."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from colordim import manual
from colordim.errors import ArgumentError, ColordimError, FormatError, NotARunError, StreamError
from colordim.web.answers import BINARY, ROUTES
from colordim.web.bundle import STATIC, bundle
from colordim.web.catalogue import Catalogue
from colordim.web.events import Broadcast, FullError
from colordim.web.manual_page import manual_page
from colordim.web.security import Access, Guard, failure

__all__ = ["PORT", "STATIC", "Viewer", "listen", "serve"]

#: Where the server listens unless it is told otherwise; the next free one if that is taken.
PORT = 8765
_PORTS = 100

#: The module that the page begins with; it is sent with all others in it.
MAIN = "main.js"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

#: Threads that answer questions; one holds a tile of at most some ten MB.
_THREADS = 4
_POLLERS = 2
#: Bytes from which on an answer is compressed.
_WORTH_IT = 1024

#: Status of what is raised; the first that fits.
_STATUS: tuple[tuple[type[ColordimError], int], ...] = (
    (ArgumentError, 400), (StreamError, 404), (NotARunError, 404), (FormatError, 422), (ColordimError, 422),
)  # fmt: skip


class Viewer:
    """What the server answers.

    Parameters
    ----------
    catalogue : Catalogue
    access : Access
    static : Path
    pack : bool
        Whether large answers are compressed: on one machine that takes longer than sending them.

    Attributes
    ----------
    app : ASGI application
    """

    def __init__(self, catalogue: Catalogue, access: Access, static: Path = STATIC, *, pack: bool = True) -> None:
        self._pack = pack
        self._catalogue = catalogue
        self._threads = ThreadPoolExecutor(_THREADS, "colordim-answer")
        self._pollers = ThreadPoolExecutor(_POLLERS, "colordim-poll")
        self._turn = asyncio.Semaphore(_THREADS)
        self._static = {
            path.name: path for path in sorted(static.iterdir()) if path.suffix in _TYPES and path.is_file()
        }
        self._bundled: tuple[int, bytes] | None = None
        self.events = Broadcast(self._pollers)
        routes = [
            Route("/", self._index),
            Route("/static/{name}", self._file),
            Route("/manual/{page:path}", self._manual),
            Route("/api/runs", self._runs),
            Route("/api/events", self._events),
            Route("/api/{route}", self._answer),
        ]
        self.app = Guard(
            Starlette(routes=routes, exception_handlers={HTTPException: _not_found, ColordimError: _failed}), access
        )

    def close(self) -> None:
        """Let go of the threads."""
        for threads in (self._threads, self._pollers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _index(self, request: Request) -> Response:
        return await self._served("index.html", request)

    async def _file(self, request: Request) -> Response:
        return await self._served(request.path_params["name"], request)

    async def _manual(self, request: Request) -> Response:
        page = request.path_params["page"]
        if page and page not in manual.names():
            return failure(404, "the manual has no such page.")
        return await self._response(request, lambda: manual_page(page), "text/html; charset=utf-8")

    async def _served(self, name: str, request: Request) -> Response:
        path = self._static.get(name)
        if path is None:
            raise HTTPException(404)
        work = self._script if name == MAIN else path.read_bytes
        return await self._response(request, work, f"{_TYPES[path.suffix]}; charset=utf-8")

    def _script(self) -> bytes:
        """Return the page's modules as one: forty requests would take longer than all the rest of opening the page."""
        changed = max(path.stat().st_mtime_ns for path in self._static.values())
        if self._bundled is None or self._bundled[0] != changed:
            main = self._static[MAIN]
            self._bundled = changed, bundle(main.read_text("utf-8"), main.parent).encode()
        return self._bundled[1]

    async def _runs(self, request: Request) -> Response:
        return await self._response(request, self._catalogue.listed, "application/json")

    async def _answer(self, request: Request) -> Response:
        route = request.path_params["route"]
        if route not in ROUTES:
            raise HTTPException(404)
        parameters = {name: value for name, value in request.query_params.items() if name not in ("run", "token")}
        name = request.query_params.get("run", "")
        kind = "application/octet-stream" if route in BINARY else "application/json"
        return await self._response(request, lambda: self._catalogue.open(name).answer(route, parameters), kind)

    async def _events(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        name = request.query_params.get("run", "")
        run = await loop.run_in_executor(self._threads, self._catalogue.open, name)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        try:
            events = self.events.subscribe(run)
        except FullError:
            return failure(503, "too many pages listen: close some.")
        return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _response(self, request: Request, work: Callable[[], bytes], kind: str) -> Response:
        packs = self._pack and "gzip" in request.headers.get("accept-encoding", "")

        def made() -> tuple[bytes, bool]:
            data = work()
            small = gzip.compress(data, 1, mtime=0) if packs and len(data) > _WORTH_IT else data
            return (small, True) if len(small) < len(data) else (data, False)

        async with self._turn:
            # A page that is panned asks for much that it no longer wants when its turn comes.
            if await request.is_disconnected():
                return Response(status_code=499)
            data, packed = await asyncio.get_running_loop().run_in_executor(self._threads, made)
        headers = {"vary": "accept-encoding", **({"content-encoding": "gzip"} if packed else {})}
        return Response(data, headers=headers, media_type=kind)


async def _not_found(request: Request, error: Exception) -> Response:
    return failure(error.status_code if isinstance(error, HTTPException) else 404, "there is nothing at this address.")


async def _failed(request: Request, error: Exception) -> Response:
    return failure(next(status for kind, status in _STATUS if isinstance(error, kind)), str(error))


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Parameters
    ----------
    host : str
    port : int, optional
        0 for any; by default :data:`PORT`, or the next that is free.

    Raises
    ------
    ArgumentError
        If the port is taken, or there is no such address.
    """
    ports = [*range(PORT, PORT + _PORTS), 0] if port is None else [port]
    for each in ports:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, each, type=socket.SOCK_STREAM)[0]
            found = socket.socket(family, kind)
            try:
                # Elsewhere a port that was just given back is free at once; on Windows, that would be one in use.
                found.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
                found.bind(address)
                found.listen(64)
            except BaseException:
                found.close()
                raise
        except socket.gaierror:
            raise ArgumentError(
                f"there is no host {host!r}: give an address of this machine.", page="view#on-another-machine"
            ) from None
        except (OSError, OverflowError) as error:
            if each == ports[-1]:
                said = getattr(error, "strerror", None) or error
                raise ArgumentError(
                    f"port {each} of {host} cannot be listened at ({said}): name another --port, or none.",
                    page="view#on-another-machine",
                ) from None
        else:
            return found
    raise AssertionError


class _Server(uvicorn.Server):
    """A server that ends the streams of events when it is asked to stop, so that it does not wait for them."""

    def __init__(self, viewer: Viewer, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._viewer = viewer

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._viewer.events.stop()
        await super().shutdown(sockets)


def make_server(viewer: Viewer) -> uvicorn.Server:
    """Return a server, to be run with a socket that listens."""
    config = uvicorn.Config(
        viewer.app, http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None, log_level="critical",
        access_log=False, server_header=False, proxy_headers=False, limit_concurrency=128, timeout_keep_alive=10,
        timeout_graceful_shutdown=1, h11_max_incomplete_event_size=16 << 10,
    )  # fmt: skip
    return _Server(viewer, config)


def serve(viewer: Viewer, listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    try:
        make_server(viewer).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn passes it on when it has stopped
        pass
    finally:
        viewer.close()
        listening.close()
