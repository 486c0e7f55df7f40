"""moto's S3 in a process of its own, which fails on purpose: python s3_server.py prints its port.

``/-/N`` makes every N-th request fail (0: none) and answers how many have failed. The ways take turns: refused, done
but not answered, stored by half, answered by half, answered too late.
"""

import io
import itertools
import sys
import threading
import time

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

LATE = 7.0
MOST_LATE = 1
ERROR = b"<Error><Code>%s</Code><Message>injected</Message></Error>"


class Faulty:
    """A WSGI application in front of another, every n-th request to which fails."""

    def __init__(self, application):
        self.application = application
        self.every, self.failed, self.late = 0, 0, 0
        self.requests, self.ways = itertools.count(1), itertools.count()
        self.turn = threading.Lock()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            self.every = int(path.removeprefix("/-/"))
            start_response("200 OK", [])
            return [str(self.failed).encode()]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if not self.every or next(self.requests) % self.every:
            return self.answer(environ, body, start_response)
        self.failed += 1
        ways = (self.refuse, self.lose, self.store_half, self.answer_half, self.answer_late)
        return ways[next(self.ways) % len(ways)](environ, body, start_response)

    def answer(self, environ, body, start_response):
        with self.turn:  # moto looks and then writes; a real store does both at once
            return list(self.application(environ | {"wsgi.input": io.BytesIO(body)}, start_response))

    def refuse(self, environ, body, start_response):
        return self.fail(environ, start_response, "503 Slow Down", b"SlowDown")

    def fail(self, environ, start_response, status, code):
        start_response(status, [("Content-Type", "application/xml"), ("Connection", "close")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [ERROR % code]

    def lose(self, environ, body, start_response):
        self.answer(environ, body, lambda status, headers, *rest: None)
        return self.fail(environ, start_response, "500 Internal Server Error", b"InternalError")

    def store_half(self, environ, body, start_response):
        if environ["REQUEST_METHOD"] != "PUT" or "HTTP_IF_NONE_MATCH" in environ or not body:
            return self.lose(environ, body, start_response)
        checks = ("MD5", "CHECKSUM", "SHA256", "SDK")
        plain = {name: value for name, value in environ.items() if not any(word in name for word in checks)}
        plain.pop("HTTP_CONTENT_ENCODING", None)
        half = body[: len(body) // 2]
        return self.lose(plain | {"CONTENT_LENGTH": str(len(half))}, half, start_response)

    def answer_half(self, environ, body, start_response):
        closing = ("Connection", "close")
        start = lambda status, headers, *rest: start_response(status, [*headers, closing], *rest)  # noqa: E731
        answer = b"".join(self.answer(environ, body, start))
        return [answer[: len(answer) // 2]]

    def answer_late(self, environ, body, start_response):
        self.late += 1
        if self.late <= MOST_LATE:
            time.sleep(LATE)
        return self.answer(environ, body, start_response)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args):
        pass


if __name__ == "__main__":
    application = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()
    sys.exit()
