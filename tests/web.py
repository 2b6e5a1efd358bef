"""A web server on this machine, for tests of downloads."""

import contextlib
import http.server
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``, {path: bytes}, and keeps what it was asked: ``asked`` holds the Range of every request.

    ``ranges`` False: it always sends everything. ``status``: it answers with this error. ``cut``: it hangs up after so
    many bytes of a file. ``claimed``: the length that it states.
    """

    ranges, status, cut, claimed = True, 200, None, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {}
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200 or self.path not in server.files:
            return self.send_error(server.status if server.status != 200 else 404)
        content = server.files[self.path]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(server.claimed or len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.cut])  # and hang up

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    """A Server that answers."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
