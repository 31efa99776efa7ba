"""A viewer for one scan, served to this machine alone."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from trainer.page import page
from trainer.viewer import Scan, viewer_html

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
HTML, BYTES = "text/html; charset=utf-8", "application/octet-stream"


class Server(ThreadingHTTPServer):
    """Serves one page and its voxels on 127.0.0.1 under a path that cannot be guessed.

    A request must name this machine as its host: else a page from elsewhere whose name was bent to 127.0.0.1 (DNS
    rebinding) could read the scan. The secret path keeps out other users of the machine.

    Args:
        scan: what is shown.
        labels: names by value, the background first.
        port: where to listen; 0 for any that is free.

    Raises:
        OSError: the port is taken.

    """

    daemon_threads = True

    def __init__(self, scan: Scan, labels: Sequence[str], *, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.root = f"/{secrets.token_urlsafe(16)}/"
        whole = [slice(0, size) for size in scan.geometry.shape_zyx]
        described = scan.describe(labels, whole, (1, 1, 1), "The whole scan.")
        self.answers: dict[str, tuple[str, bytes | memoryview]] = {}
        for name, array in (
            ("image", scan.image),
            ("reference", scan.reference),
            ("prediction", scan.prediction),
        ):
            described[name] = None
            if array is None:
                continue
            kind = "int16" if name == "image" else "uint8"
            described[name] = {"type": kind, "url": name, "low": scan.low, "step": scan.step}
            little = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<"))
            self.answers[self.root + name] = (BYTES, little.reshape(-1).view(np.uint8).data)
        viewer = viewer_html(labels, [described], reference=scan.reference is not None)
        body = (
            f"<header><h1>{escape(scan.title)}</h1>"
            f'<p class="quiet">Research use; not a medical device.</p></header><main>{viewer}</main>'
        )
        self.answers[self.root] = (HTML, page(scan.title, body, connect="'self'").encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave it unsaid when a browser goes away while voxels are on their way, as it does on a reload."""
        if isinstance(sys.exception(), ConnectionError):
            log.debug("the browser went away", exc_info=True)
        else:
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}{self.root}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN, "this viewer answers to 127.0.0.1 and localhost only")
            return
        found = self.server.answers.get(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, content = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is theirs
        log.debug(format, *args)
