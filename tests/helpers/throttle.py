"""An S3 server that turns requests away for as long as a test wants."""

import random
from collections.abc import Callable, Iterable
from typing import Any

_BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>Please try again.</Message></Error>"


class Throttle:
    """Stands before the application of a moto server and answers a `share` of its requests with an error.

    `share`, `status`, `code` and `before` (called with a request's method and path before it is answered) may be
    changed at any time. With `done` what it turns away is done all the same; with `unconditional` no put has a
    condition.
    """

    def __init__(self, server: Any):
        self.share, self.status, self.code, self.turned_away = 0.0, 503, "SlowDown", 0
        self.done = self.unconditional = False
        self.before: Callable[[str, str], None] | None = None
        self._server, self._app = server._server, server._server.app
        self._server.app = self

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self.before:
            self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if self.unconditional:
            environ = {name: value for name, value in environ.items() if not name.startswith("HTTP_IF_")}
        if random.random() >= self.share:
            return self._app(environ, start_response)
        if self.done:
            list(self._app(environ, lambda *_: None))
        else:  # who is still sending would take a closed connection for the answer
            chunked = environ.get("wsgi.input_terminated")
            environ["wsgi.input"].read(*() if chunked else (int(environ.get("CONTENT_LENGTH") or 0),))
        self.turned_away += 1
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else _BODY.format(code=self.code).encode()
        start_response(f"{self.status} no", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def close(self) -> None:
        """Let everything pass."""
        self._server.app = self._app
