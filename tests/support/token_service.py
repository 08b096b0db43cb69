"""A token service as registries have it: gives whoever has the password a token that a docker-registry accepts, and that soon
expires."""

import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

from file_server import serve

# For how long Debian's docker-registry accepts a token that has expired.
LEEWAY = 60


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """`lifetime` of its tokens, in seconds. `given` counts them; `access` is for the configuration of the registry."""

    def __init__(self, user, password, lifetime):
        self.lifetime, self.given = lifetime, 0
        self.basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-tokens-"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout",
                        "key.pem", "-out", "certificate.pem"], cwd=self.directory, check=True, stderr=subprocess.DEVNULL)
        der = subprocess.run(["openssl", "x509", "-in", "certificate.pem", "-outform", "DER"], cwd=self.directory, check=True,
                             stdout=subprocess.PIPE).stdout
        self.header = base64url(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}).encode())
        self.server = serve(self.answer)
        self.access = (f"auth: {{token: {{realm: 'http://127.0.0.1:{self.server.server_address[1]}/token', service: e2e, issuer: tokens, "
                       f"rootcertbundle: {self.directory}/certificate.pem}}}}\n")

    def token(self, actions=("pull",), names=("streamed", "indexed")):
        now = int(time.time())
        claims = {"iss": "tokens", "sub": "somebody", "aud": "e2e", "iat": now - 2 * LEEWAY, "nbf": now - 2 * LEEWAY,
                  "exp": now + self.lifetime - LEEWAY, "jti": base64url(self.given.to_bytes(8, "big")),
                  "access": [{"type": "repository", "name": name, "actions": list(actions)} for name in names]}
        signed = f"{self.header}.{base64url(json.dumps(claims).encode())}"
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", "key.pem"], cwd=self.directory, check=True,
                                   input=signed.encode(), stdout=subprocess.PIPE).stdout
        return f"{signed}.{base64url(signature)}"

    def answer(self, request):
        if request.headers.get("Authorization") != self.basic:
            return request.send_error(401)
        self.given += 1
        body = json.dumps({"token": self.token(), "expires_in": self.lifetime}).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", len(body))
        request.end_headers()
        request.wfile.write(body)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
