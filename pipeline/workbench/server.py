"""The server of the page: files of static/, pictures by row, exports, and the WebSocket.

Only what is listed here is served, never a path. See safety.py for who may ask.
"""

import asyncio
import contextlib
import json
import signal
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..core.console import say
from ..core.errors import UserError
from . import export, mapping, views, wire
from .hub import Hub, Tab
from .pictures import Pictures
from .safety import ADDRESS, Guard
from .session import Session

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LARGEST = 2_000_000  # bytes of a message of the page
NAMES = 1024  # names of images in a block
FIRST_PORT, LAST_PORT = 8765, 65_535
KEPT = {"cache-control": "private, max-age=86400"}  # pictures: another run has other addresses


class Pages:
    """What is answered over HTTP."""

    def __init__(self, hub: Hub):
        self.hub, self.pictures = hub, hub.pictures
        self.files = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}

    async def file(self, request: Request) -> Response:
        path = self.files.get(request.path_params.get("name", "index.html"))
        if path is None:
            return Response("there is no such page\n", 404, media_type="text/plain")
        return Response(path.read_bytes(), media_type=TYPES[path.suffix])

    async def picture(self, request: Request) -> Response:
        """sheet/3.jpg, image/17.jpg, seen/17/0.png: the latter after the preprocess recipe of that number."""
        kind, row, number = (request.path_params.get(key, 0) for key in ("kind", "row", "number"))
        loop = asyncio.get_running_loop()
        try:
            if kind == "seen":
                recipes = list(dict.fromkeys(member.preprocess for member in self.hub.session.seen.parts))
                if number >= len(recipes):
                    raise UserError("no such preprocess recipe")
                content = await loop.run_in_executor(None, self.pictures.preprocessed, row, recipes[number])
                return Response(content, media_type="image/png")
            make = self.pictures.sheet if kind == "sheet" else self.pictures.large
            content = await loop.run_in_executor(None, make, row)
            return Response(content, media_type="image/jpeg", headers=KEPT)
        except UserError as error:
            return Response(f"{error}\n", 404, media_type="text/plain")

    async def names(self, request: Request) -> Response:
        start = request.path_params["block"] * NAMES
        ids = self.hub.session.first.images.ids[start : start + NAMES]
        text = json.dumps([name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in ids])
        return Response(text, media_type="application/json", headers=KEPT)

    async def export(self, request: Request) -> Response:
        """export/csv?view=...: a table of the images of a view."""
        kind = request.path_params["kind"]
        try:
            view = views.read(json.loads(request.query_params.get("view", '{"kind": "all"}')))
            make = lambda: export.written(self.hub.session, view, kind)  # noqa: E731
            content = await asyncio.get_running_loop().run_in_executor(self.hub.thread, make)
        except (UserError, json.JSONDecodeError, RecursionError) as error:
            return Response(f"{error}\n", 400, media_type="text/plain")
        name = f"{self.hub.session.first.name}-{view.kind}.{kind}"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type=export.KINDS[kind], headers=headers)

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        tab = Tab(socket.send_bytes)
        self.hub.tabs.append(tab)
        try:
            while True:
                try:
                    self.hub.asked.put_nowait((tab, wire.message(await _text(socket))))
                except UserError as error:
                    await socket.send_bytes(wire.frame({"type": "refused", "of": "", "why": str(error)}, {}))
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.hub.tabs.remove(tab)


async def _text(socket: WebSocket) -> str | None:
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    return event.get("text")


def application(hub: Hub) -> Starlette:
    """The pages of a hub, which runs as long as they are served."""
    pages = Pages(hub)

    @contextlib.asynccontextmanager
    async def running(_):
        tasks = [asyncio.create_task(hub.run()), asyncio.create_task(mapping.draw(hub))]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    routes = [
        Route("/", pages.file),
        WebSocketRoute("/socket", pages.socket),
        Route("/names/{block:int}.json", pages.names),
        Route("/export/{kind}", pages.export),
        Route("/seen/{row:int}/{number:int}.png", _of_kind(pages.picture, "seen")),
        Route("/sheet/{row:int}.jpg", _of_kind(pages.picture, "sheet")),
        Route("/image/{row:int}.jpg", _of_kind(pages.picture, "image")),
        Route("/{name}", pages.file),
    ]
    return Starlette(routes=routes, lifespan=running)


def _of_kind(endpoint, kind: str):
    async def asked(request: Request) -> Response:
        request.path_params["kind"] = kind
        return await endpoint(request)

    return asked


def bound(port: int | None) -> socket.socket:
    """A socket on this machine's own address: the port asked for, else the first that is free from FIRST_PORT on.

    UserError for a port that cannot be had.
    """
    if port and port > LAST_PORT:
        raise UserError(f"PORT={port}: a port is a number up to {LAST_PORT}")
    for number in [port] if port else [*range(FIRST_PORT, FIRST_PORT + 50), 0]:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((ADDRESS, number))
            found.listen(64)  # from now on who comes waits, and is answered when the server runs
            return found
        except OSError as error:
            found.close()
            if port:
                raise UserError(f"PORT={port}: {error.strerror}; give another one, or none") from None
    raise UserError("no port is free on this machine")


class Serving:
    """The server of a session on a socket of `bound`, ready to run."""

    def __init__(self, session: Session, listening: socket.socket):
        pictures = Pictures(session.first, session.folder)
        pictures.bake()
        self.socket, self.hub = listening, Hub(session, pictures)
        self.guard = Guard(application(self.hub), self.socket.getsockname()[1])
        config = uvicorn.Config(
            self.guard,
            log_level="error",
            access_log=False,
            server_header=False,
            ws_max_size=LARGEST,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)

    def run(self) -> None:
        """Until Ctrl-C, or `server.should_exit`; what is unsaved is kept for the next time."""
        session = self.hub.session
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, self.server.handle_exit)  # the terminal was closed
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(self.socket):
            self.server.run(sockets=[self.socket])
        self.hub.thread.submit(session.keep).result()
        self.hub.thread.shutdown(cancel_futures=True)
        unsaved = ", ".join(session.draft.changed)
        session.held.close()
        say("workbench", session.name, f"ended; unsaved and kept for the next time: {unsaved}" if unsaved else "ended")


def serve(session: Session, listening: socket.socket) -> None:
    """Serve the page of a session, and say where it is."""
    serving = Serving(session, listening)
    say("workbench", session.name, f"{serving.guard.url}  (Ctrl-C ends it)")
    serving.run()
