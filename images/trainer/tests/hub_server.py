"""An HTTP server on this machine that answers as a model hub does: a commit's listing, files, large ones elsewhere."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "org/small-bert"
BASE = f"hf://{MODEL}@{COMMIT}"


class Hub:
    """What it has, and what is to go wrong.

    Attributes:
        url: its address.
        files: of the one commit that it has, by path; those that end in .safetensors are large files to it.
        instead: what it gives in place of a file that it lists.
        status: of every answer, where that is not None.
        asked: paths that were asked for.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.url = ""
        self.files = files
        self.instead: dict[str, bytes] = {}
        self.status: int | None = None
        self.asked: list[str] = []

    def listing(self) -> bytes:
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "onnx"}]
        for path, content in self.files.items():
            entry = {"type": "file", "path": path, "size": len(content)}
            entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if path.endswith(".safetensors"):
                entry["oid"] = "1" * 40  # of the pointer to it
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return json.dumps(entries).encode()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """The status, the content, and where it leads to."""
        self.asked.append(path)
        resolve, elsewhere = f"/{MODEL}/resolve/{COMMIT}/", "/elsewhere/"
        if self.status is not None:
            return self.status, b"{}", ""
        if path == f"/api/models/{MODEL}/tree/{COMMIT}":
            return 200, self.listing(), ""
        name = path.removeprefix(resolve).removeprefix(elsewhere)
        if name not in self.files or not path.startswith((resolve, elsewhere)):
            return 404, b'{"error": "not found"}', ""
        if name.endswith(".safetensors") and path.startswith(resolve):
            return 302, b"", elsewhere + name
        return 200, self.instead.get(name, self.files[name]), ""


@contextmanager
def running_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub with one model of one commit."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content, leads_to = hub.answer(self.path)
            self.send_response(status)
            if leads_to:
                self.send_header("Location", leads_to)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
