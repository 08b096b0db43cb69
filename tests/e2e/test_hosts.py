"""Registries that are reached as containerd's hosts.toml says: a mirror behind TLS with a private authority that wants a
certificate of its clients, which dies while the image is read."""

import contextlib
import os
import signal
import subprocess

import oci
from case import Case
from fronts import certificate, directory_of_keys, nginx, tls, to
from sandbox import BIN, Hydrant, Registry, accepts, free_port, wait_until


@contextlib.contextmanager
def mutual_tls(port_behind):
    """A front that asks for certificates; yields its directory, its port and its pid."""
    with directory_of_keys() as directory:
        certificate(directory, "client", issuer="authority")
        port = free_port()
        server = f"{tls()} ssl_client_certificate authority.crt; ssl_verify_client on; {to(port_behind)}"
        with nginx(directory, port, server) as pid:
            yield directory, port, pid


class Hosts(Case):
    def test_a_mirror_with_certificates_is_preferred_and_its_death_is_not_noticed(self):
        with Registry() as registry, mutual_tls(registry.port) as (front, port, pid), Hydrant() as hydrant:
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
                os.kill(pid, signal.SIGTERM)
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
