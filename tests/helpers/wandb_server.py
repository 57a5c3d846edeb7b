"""A W&B server on loopback: it takes runs from whoever has the key, and keeps what it is sent."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PROJECT = {"name": "tests", "entity": {"name": "me"}}
_BUCKET = {"id": "r", "name": "r", "displayName": "r", "project": _PROJECT, "historyLineCount": 0, "config": "{}"}
_BUCKET |= {"sweepName": None, "historyTail": "[]", "eventsTail": "[]", "summaryMetrics": "{}", "wandbConfig": "{}"}
_ANSWERS = {  # by what a query asks for; the client takes null for all else
    "upsertBucket": {"upsertBucket": {"bucket": _BUCKET, "inserted": True}},
    "RunResumeStatus": {"model": None},
    "viewer": {"viewer": {"id": "me", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
    "serverInfo": {"serverInfo": {"latestLocalVersionInfo": None, "features": [], "cliVersionInfo": {}}},
}


class WandbServer:
    """Its `url`, and the requests, path and body, that it took, and that it refused for their key."""

    def __init__(self, key: str):
        self.taken: list[tuple[str, bytes]] = []
        self.refused: list[tuple[str, bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                given = self.headers.get("Authorization", "")
                uploads = self.path.startswith("/upload/")  # to an address that only who has the key was told
                if not uploads and given != f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}":
                    server.refused.append((self.path, body))
                    self.send_response(401)
                    self.end_headers()
                    return
                server.taken.append((self.path, body))
                content = json.dumps(server.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What is said to a request."""
        if not path.endswith("graphql"):
            return {}
        asked = json.loads(body)
        if asked["operationName"] == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in asked["variables"]["files"]]
            return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}
        return {"data": next((answer for name, answer in _ANSWERS.items() if name in asked["query"]), {})}

    def history(self) -> Iterator[dict[str, Any]]:
        """The rows of the runs' histories, as they came."""
        for path, body in self.taken:
            if path.endswith("file_stream"):
                files = json.loads(body).get("files", {})
                yield from map(json.loads, files.get("wandb-history.jsonl", {}).get("content", []))


@contextmanager
def wandb_server(key: str) -> Iterator[WandbServer]:
    """A server that takes this key alone."""
    server = WandbServer(key)
    threading.Thread(target=server._http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server._http.shutdown()
