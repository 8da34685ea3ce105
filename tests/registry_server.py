"""A schema registry on a real port, for tests."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

NOT_FOUND = (404, b'{"error_code": 40403, "message": "Schema not found"}')
Answer = tuple[int, bytes]


class Registry:
    """A registry that holds some schemas by id.

    answers : what it says to a path, 404 to any other;  asked : (path, Authorization) of each question
    redirect : an address that it sends everybody to;  patience : while it is not set, nobody is answered
    """

    def __init__(self, schemas: dict[int, str], port: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        for schema_id, text in schemas.items():
            self.say(schema_id, 200, json.dumps({"schema": text}).encode())
        self.asked: list[tuple[str, str | None]] = []
        self.redirect: str | None = None
        self.patience = Event()
        self.patience.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, schema_id: int, code: int, body: bytes) -> None:
        """Answer this from now on when asked for an id."""
        self.answers[f"/schemas/ids/{schema_id}"] = code, body

    def stop(self) -> None:
        """Go away; a second time changes nothing."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Authorization")))
                outer.patience.wait(60)
                code, body = outer.answers.get(self.path, NOT_FOUND)
                self.send_response(302 if outer.redirect else code)
                if outer.redirect:
                    self.send_header("Location", outer.redirect + self.path)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
