"""What stands in front of a server: nginx with TLS or whatever else a test says, nghttpx that speaks HTTP/2 alone."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile

from sandbox import accepts, free_port, wait_until



def certificate(directory, name, *extensions, issuer=None, days=2):
    """NAME.crt and NAME.key; signed by `issuer`, or an authority. With `days` below zero it has expired."""
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key"]
    for extension in extensions:
        new += ["-addext", extension]
    run = lambda command: subprocess.run(command, cwd=directory, check=True, stderr=subprocess.DEVNULL)
    if not issuer:
        run([*new, "-x509", "-days", str(days), "-out", f"{name}.crt"])
        return
    run([*new, "-out", f"{name}.csr"])
    run(["openssl", "x509", "-req", "-in", f"{name}.csr", "-copy_extensions", "copy", "-days", str(days), "-CA", f"{issuer}.crt",
         "-CAkey", f"{issuer}.key", "-CAcreateserial", "-out", f"{name}.crt"])


@contextlib.contextmanager
def process(command, port, what):
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(port), 30, f"{what} listens")
        yield server.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
        server.wait()


@contextlib.contextmanager
def directory_of_keys():
    """With an authority, and a certificate "server" for 127.0.0.1 that it has signed."""
    with tempfile.TemporaryDirectory(prefix="hydrant-front-") as text:
        directory = pathlib.Path(text)
        certificate(directory, "authority", "basicConstraints=critical,CA:TRUE")
        certificate(directory, "server", "subjectAltName=IP:127.0.0.1", issuer="authority")
        yield directory


def nginx(directory, port, server, *listen):
    """`server`: what its only server block has beside the port; `listen`: more words about that. Its access log is access.log there. Yields its pid."""
    (directory / "nginx.conf").write_text(f"""
daemon off; pid nginx.pid; error_log error.log; user root;
events {{}}
http {{
  access_log access.log; proxy_max_temp_file_size 0;
  server {{
    listen 127.0.0.1:{port} {" ".join(listen)} {"ssl" if "ssl_certificate " in server else ""};
    {server}
  }}
}}
""")
    return process(["nginx", "-p", directory, "-c", "nginx.conf"], port, "nginx")


def tls(name="server"):
    return f"ssl_certificate {name}.crt; ssl_certificate_key {name}.key;"


def to(port_behind):
    return f"location / {{ proxy_pass http://127.0.0.1:{port_behind}; proxy_set_header Host $http_host; }}"


@contextlib.contextmanager
def http2_alone(directory, port_behind):
    """Yields its port. Its log, access.log, tells the protocol of each request."""
    port = free_port()
    with process(["nghttpx", "--conf=/dev/null", f"--frontend=127.0.0.1,{port}", f"--backend=127.0.0.1,{port_behind}",
                  "--npn-list=h2", "--workers=1", f"--accesslog-file={directory}/access.log", "--accesslog-format=$request",
                  f"--errorlog-file={directory}/error.log", directory / "server.key", directory / "server.crt"], port, "nghttpx"):
        yield port
