"""A bucket over HTTP that checks Signature Version 4 by itself, strictly, with nothing but hmac and hashlib."""

import email.utils
import hashlib
import hmac
import re
import time
import urllib.parse

from file_server import FileServer


def signature(secret, method, path, query, headers, signed, payload, stamp, region):
    """The signature that a request must carry, from what came over the wire."""
    pairs = sorted(part if "=" in part else part + "=" for part in query.split("&") if part)
    request = "\n".join([method, path, "&".join(pairs), *(f"{name}:{headers[name].strip()}" for name in signed), "",
                         ";".join(signed), payload])
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


class S3Server(FileServer):
    """Objects are added as paths, "/bucket/key", decoded. `clock_offset`: seconds that this server's clock is ahead."""

    def __init__(self, access_key="AKID", secret="secret/+key", region="eu-test-1"):
        super().__init__()
        self.access_key, self.secret, self.region, self.clock_offset = access_key, secret, region, 0
        self.refusals = []

    def refuse(self, request, status, code, more=""):
        self.refusals.append(code)
        body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code>{more}</Error>".encode()
        request.send_response_only(status)
        request.send_header("Date", email.utils.formatdate(time.time() + self.clock_offset, usegmt=True))
        request.send_header("Content-Length", len(body))
        request.end_headers()
        request.wfile.write(body)

    def answer(self, request):
        path, _, query = request.path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
                             r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})", headers.get("authorization", ""))
        if not found:
            return self.refuse(request, 403, "AccessDenied")
        access_key, day, region, signed, given = found.groups()
        stamp, payload = headers.get("x-amz-date", ""), headers.get("x-amz-content-sha256", "")
        if access_key != self.access_key:
            return self.refuse(request, 403, "InvalidAccessKeyId")
        if region != self.region:
            return self.refuse(request, 400, "AuthorizationHeaderMalformed", f"<Region>{self.region}</Region>")
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(signed.split(";")) or not stamp.startswith(day):
            return self.refuse(request, 403, "AccessDenied")
        expected = signature(self.secret, request.command, path, query, headers, signed.split(";"), payload, stamp, region)
        if not hmac.compare_digest(given, expected):
            return self.refuse(request, 403, "SignatureDoesNotMatch")
        signed_at = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(signed_at - time.time() - self.clock_offset) > 900:
            return self.refuse(request, 403, "RequestTimeTooSkewed")
        request.path = urllib.parse.unquote(path)
        super().answer(request)
