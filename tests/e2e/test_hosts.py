"""Registries that are reached as containerd's hosts.toml says: a mirror behind TLS with a private authority that wants a
certificate of its clients, which dies while the image is read."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile

import oci
from case import Case
from sandbox import BIN, Hydrant, Registry, accepts, free_port, wait_until


def certificate(directory, name, *extensions, issuer=None):
    """NAME.crt and NAME.key; signed by `issuer`, or an authority."""
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
           "-keyout", f"{name}.key", "-out", f"{name}.crt"]
    for extension in extensions:
        new += ["-addext", extension]
    if issuer:
        new += ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key"]
    subprocess.run(new, cwd=directory, check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def tls_front(port_behind):
    """nginx with TLS in front of a registry; yields its directory, its port and its pid. Asks for client certificates."""
    with tempfile.TemporaryDirectory(prefix="hydrant-nginx-") as text:
        directory = pathlib.Path(text)
        certificate(directory, "authority", "basicConstraints=critical,CA:TRUE")
        certificate(directory, "server", "subjectAltName=IP:127.0.0.1", issuer="authority")
        certificate(directory, "client", issuer="authority")
        port = free_port()
        (directory / "nginx.conf").write_text(f"""
daemon off; pid nginx.pid; error_log error.log; user root;
events {{}}
http {{
  access_log access.log; proxy_max_temp_file_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate server.crt; ssl_certificate_key server.key;
    ssl_client_certificate authority.crt; ssl_verify_client on;
    location / {{ proxy_pass http://127.0.0.1:{port_behind}; proxy_set_header Host $http_host; }}
  }}
}}
""")
        server = subprocess.Popen(["nginx", "-p", str(directory), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: accepts(port), 30, "nginx listens")
            yield directory, port, server.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGTERM)
            server.wait()


class Hosts(Case):
    def test_a_mirror_with_certificates_is_preferred_and_its_death_is_not_noticed(self):
        with Registry() as registry, tls_front(registry.port) as (front, port, nginx), Hydrant() as hydrant:
            content = hydrant.base / "content"
            content.mkdir()
            (content / "big").write_bytes(os.urandom(8 << 20))
            image = oci.Image(hydrant.base / "image")
            image.add_layer(oci.tar_directory(content))
            image.finish()
            oci.push(image.directory, registry.port, "app")
            pushed = registry.bytes_sent()
            described = hydrant.base / "certs.d" / f"127.0.0.1_{registry.port}_"
            described.mkdir(parents=True)
            toml = f"[host.'https://127.0.0.1:{port}']\nca = '{front}/authority.crt'\n"
            (described / "hosts.toml").write_text(toml + f"client = [['{front}/client.crt', '{front}/client.key']]\n")
            hydrant.start_daemons(fetchd=["--hosts-dir", hydrant.base / "certs.d"])
            reference = registry.name("app:latest")
            hydrant.ok("index", reference)
            mounted = hydrant.mount(reference) / "big"
            self.assertEqual(registry.bytes_sent() - pushed, sum_of_answers(front), "everything came through the mirror")

            with open(mounted, "rb") as file, open(content / "big", "rb") as wanted:
                self.assertEqual(file.read(1 << 20), wanted.read(1 << 20))
                before = sum_of_answers(front)
                self.assertGreater(before, 0)
                os.kill(nginx, signal.SIGTERM)
                wait_until(lambda: not accepts(port), 30, "nginx is gone")
                self.assertEqual(file.read(), wanted.read())
            self.assertGreater(registry.bytes_sent(), before, "the rest came from the registry itself")

    def test_what_is_wrong_with_a_description_is_told(self):
        with Registry() as registry, Hydrant() as hydrant:
            described = hydrant.base / "certs.d" / f"127.0.0.1:{registry.port}"
            described.mkdir(parents=True)
            hydrant.start_daemons(fetchd=["--hosts-dir", hydrant.base / "certs.d"])
            for text, said in (("server = [", "hosts.toml: line 1"), ("ca = 'missing.pem'", "missing.pem")):
                (described / "hosts.toml").write_text(text)
                failed = hydrant.run("mount", registry.name("app:latest"), hydrant.new_dir())
                self.assertNotEqual(failed.returncode, 0)
                self.assertIn(said, failed.stderr)


    def test_options_may_stand_in_a_file(self):
        with Hydrant() as hydrant:
            config = hydrant.base / "fetchd.toml"
            for text, said in (("wrkers = 8\n", "wrkers"), ("workers = 0\n", "workers"), ("workers = \"x\"\n", "workers")):
                config.write_text(text)
                failed = subprocess.run([BIN / "hydrant-fetchd", "--root", hydrant.root, "--config", config], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                self.assertEqual(failed.returncode, 2, failed.stdout)
                self.assertIn(said, failed.stdout)
            config.write_text(f"workers = 4\nhosts-dir = [\"{hydrant.base}/a\", \"{hydrant.base}/b\"]\n")
            hydrant.start_daemons(fetchd=["--config", config])


def sum_of_answers(front):
    """Body bytes that nginx has sent, by its access log (combined format)."""
    lines = (front / "access.log").read_text().splitlines()
    return sum(int(line.split('"')[2].split()[1]) for line in lines)
