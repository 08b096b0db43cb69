"""An HTTP server of one process for single files: with ranges and validators, or without, as a test says."""

import http.server
import re
import sys
import threading


class Served:
    """One file. Any attribute may be changed while it is served."""

    def __init__(self, data, etag='"1"', modified="Sun, 06 Nov 1994 08:49:37 GMT"):
        self.data, self.etag, self.modified = data, etag, modified
        self.ranges = True
        self.length = True  # announced in advance
        self.sent = 0  # bytes of the body


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # fetchd was killed, or has what it wanted
            super().handle_error(request, client_address)


def serve(answer):
    """A server on a free port of loopback that calls `answer` with the handler of each GET, in a thread of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class FileServer:
    """`files`: path to Served. hold() makes every answer wait for release()."""

    def __init__(self):
        self.files = {}
        self.flowing = threading.Event()
        self.flowing.set()
        self.server = serve(self.answer)
        self.port = self.server.server_address[1]

    def add(self, path, data, **options):
        self.files[path] = Served(data, **options)
        return self.files[path]

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def hold(self):
        self.flowing.clear()

    def release(self):
        self.flowing.set()

    def answer(self, request):
        self.flowing.wait()
        served = self.files.get(request.path.split("?")[0])
        if not served:
            return request.send_error(404)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")) if served.ranges else None
        total = len(served.data)
        body = served.data
        if asked and int(asked[1]) >= total:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{total}")
            body = b""
        elif asked:
            begin, end = int(asked[1]), min(int(asked[2]) + 1, total)
            body = served.data[begin:end]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{total}")
        else:
            request.send_response(200)
        if served.etag:
            request.send_header("ETag", served.etag)
        if served.modified:
            request.send_header("Last-Modified", served.modified)
        request.send_header(*(("Content-Length", len(body)) if served.length else ("Connection", "close")))
        request.end_headers()
        for at in range(0, len(body), 65536):
            self.flowing.wait()
            request.wfile.write(body[at : at + 65536])
            served.sent += len(body[at : at + 65536])

    def close(self):
        self.flowing.set()
        self.server.shutdown()
        self.server.server_close()
