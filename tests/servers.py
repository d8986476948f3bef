"""A server on this machine for the tests of downloads, and files to put in places."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from neurovar_datasets._fetching.source import File


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def file_of(content: bytes, *, path: str = "source/counts.bin", url: str = "http://127.0.0.1:9/counts.bin") -> File:
    return File(path, url, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


@dataclass
class Server:
    """What a server sends, and what it was asked for: the range of each GET, and how many bytes it was to send.

    With `stop_at` it falls silent after so many bytes, sets `silent`, and goes on when `go_on` is set.
    """

    content: bytes = b""
    ranges: bool = True
    stop_at: int | None = None
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    url: str = ""
    asked: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def get(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.headers["Range"])
        if self.answer:
            self.answer(request)
            return
        size = len(self.content)
        asked = request.headers["Range"] if self.ranges else None
        first, last = (asked or "bytes=0-").removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last or size) + 1, size)
        if asked and start >= size:
            respond(request, 416)
            return
        extra = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if asked else {}
        respond(request, 206 if asked else 200, stop - start, **extra)
        self.sent.append(stop - start)
        pause = stop if self.stop_at is None else max(start, self.stop_at)
        request.wfile.write(self.content[start:pause])
        if self.stop_at is not None:
            self.silent.set()
            self.go_on.wait(20)
            request.wfile.write(self.content[pause:stop])


def respond(request: BaseHTTPRequestHandler, status: int, length: int = 0, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(length), **headers}.items():
        request.send_header(name, value)
    request.end_headers()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            respond(self, 200, len(server.content))

        def do_GET(self) -> None:
            server.get(self)

        def log_message(self, *args: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None: ...  # a killed client

    with Quiet(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_port}/counts.bin"
        yield server
        server.go_on.set()
        http.shutdown()
