"""Origins that are not what they should be, and come back: readers get errors that name them, and then their bytes, without a
restart. And those that speak HTTP/2."""

import contextlib
import os
import time

from case import CORRUPT, UNREACHABLE, UNSUPPORTED, Case
from file_server import FileServer
from fronts import certificate, directory_of_keys, http2_alone, nginx, tls, to
from sandbox import free_port, wait_until

MEGA = 1 << 20


class Origins(Case):
    def setUp(self):
        super().setUp()
        self.keys = self.enterContext(directory_of_keys())
        self.files = FileServer()
        self.addCleanup(self.files.close)
        self.content = os.urandom(32 * MEGA)
        self.files.add("/f", self.content)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}/f"

    def start(self, *options):
        self.hydrant.start_daemons(fetchd=["--ca-file", self.keys / "authority.crt", "--read-limit", "2", *options])

    def good(self):
        return nginx(self.keys, self.port, tls() + to(self.files.port))

    def cannot_mount(self, statuses, *words):
        self.fails(statuses, words, "mount", self.url, self.temporary())

    def read(self, at):
        with open(self.mounted, "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 4096, at), self.content[at : at + 4096])

    def comes_back(self, at):
        """Nobody waits twice for an origin that was too slow a moment ago, so the first tries may fail."""
        def readable():
            with contextlib.suppress(OSError):
                self.read(at)
                return True
            return False
        with self.good():
            wait_until(readable, 30, "the bytes are read again")

    def mount_and_break(self):
        with self.good():
            self.mounted = self.hydrant.mount(self.url) / "f"
            self.read(0)

    def breaks_and_comes_back(self, broken, *words):
        """Under `broken` a mounted file gives errors, and the log says why; then its bytes again."""
        with broken:
            begun = time.monotonic()
            with self.assertRaises(OSError):
                self.read(4 * MEGA)
            self.assertLess(time.monotonic() - begun, 60)
            log = (self.hydrant.base / "hydrant-fetchd.log").read_text()
            for word in words:
                self.assertIn(str(word), log)
        self.comes_back(4 * MEGA)

    def test_certificates_that_must_not_be_believed(self):
        certificate(self.keys, "expired", "subjectAltName=IP:127.0.0.1", issuer="authority", days=-1)
        certificate(self.keys, "other", "subjectAltName=DNS:elsewhere.example", issuer="authority")
        certificate(self.keys, "unknown", "subjectAltName=IP:127.0.0.1")
        self.start()
        self.mount_and_break()
        for name, why in (("expired", "expired"), ("other", "no alternative certificate subject name"), ("unknown", "self-signed")):
            with self.subTest(name):
                server = tls(name) + to(self.files.port)
                with nginx(self.keys, self.port, server):
                    self.cannot_mount(UNREACHABLE, f"https://127.0.0.1:{self.port}", "certificate", why)
        self.breaks_and_comes_back(nginx(self.keys, self.port, tls("expired") + to(self.files.port)), "certificate", self.port)

    def test_plain_http_where_tls_should_be(self):
        self.start()
        with nginx(self.keys, self.port, to(self.files.port)):
            self.cannot_mount(UNREACHABLE, self.port, "TLS")

    def test_a_page_instead_of_the_file(self):
        """As portals and gateways answer: 200, HTML, for every address."""
        page = "default_type text/html; location / { return 200 '<html>please log in</html>'; }"
        self.start()
        self.mount_and_break()
        self.breaks_and_comes_back(nginx(self.keys, self.port, tls() + page), self.port)
        with nginx(self.keys, self.port, page):
            self.fails((CORRUPT, UNSUPPORTED), [f"127.0.0.1:{self.port}"], "mount", "--plain-http",
                       f"127.0.0.1:{self.port}/app:1", self.temporary())

    def test_every_refusal_passes(self):
        self.start()
        self.mount_and_break()
        # Far apart and in no order, so that nothing is fetched ahead.
        places = [at * MEGA for at in (5, 30, 12, 23, 3, 17, 27, 9, 20, 14, 7, 25)]
        for at, status in zip(places, (400, 403, 404, 405, 408, 410, 418, 429, 500, 502, 503, 504), strict=True):
            with self.subTest(status):
                refusal = f"location / {{ return {status}; }}"
                with nginx(self.keys, self.port, tls() + refusal), self.assertRaises(OSError):
                    self.read(at)
                self.comes_back(at)

    def test_a_proxy_that_dies(self):
        proxy = free_port()
        self.url = f"http://origin.example:{self.port}/f"
        described = self.hydrant.base / "certs.d" / f"origin.example:{self.port}"
        described.mkdir(parents=True)
        (described / "hosts.toml").write_text(f"proxy = 'http://127.0.0.1:{proxy}'\n")
        self.start("--hosts-dir", self.hydrant.base / "certs.d")
        self.good = lambda: nginx(self.keys, proxy, to(self.files.port))
        self.mount_and_break()
        self.breaks_and_comes_back(contextlib.nullcontext(), "origin.example")

    def test_a_name_that_is_not_found(self):
        self.start()
        self.fails(UNREACHABLE, ["nowhere.invalid", "name is not found"], "mount", "https://nowhere.invalid/f", self.temporary())

    def test_who_speaks_http2_alone_is_asked_by_it(self):
        self.start()
        with http2_alone(self.keys, self.files.port) as self.port:
            self.mounted = self.hydrant.mount(f"https://127.0.0.1:{self.port}/f") / "f"
            self.assertEqual(self.mounted.read_bytes(), self.content)
        asked = (self.keys / "access.log").read_text().splitlines()
        self.assertGreater(len(asked), 1)
        self.assertEqual({line.split()[-1] for line in asked}, {"HTTP/2"})

    def test_http2_may_be_preferred(self):
        for option, protocol in ((), "HTTP/1.1"), (("--prefer-http2",), "HTTP/2.0"):
            (self.keys / "access.log").unlink(missing_ok=True)
            self.start(*option)
            with nginx(self.keys, self.port, tls() + to(self.files.port), "http2"):
                self.mounted = self.hydrant.mount(self.url) / "f"
                self.assertEqual(self.mounted.read_bytes(), self.content)
            self.hydrant.ok("umount", self.mounted.parent)
            self.hydrant.forget()
            asked = [line.split('"')[1].split()[-1] for line in (self.keys / "access.log").read_text().splitlines()]
            self.assertEqual(set(asked), {protocol})
