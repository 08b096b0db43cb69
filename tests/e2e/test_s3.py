"""Objects of a bucket as files: signed requests that a verifier of its own lets in, or an error that says why not."""

import random

from case import Case
from s3_server import S3Server, signature

SIZE = (3 << 20) + 77


class Buckets(Case):
    def setUp(self):
        super().setUp()
        self.server = S3Server()
        self.addCleanup(self.server.close)
        self.data = random.Random(11).randbytes(SIZE)
        self.server.add("/bucket/disks/disk one+.img", self.data)
        # Read when the daemons start, which is at the first mount.
        self.hydrant.env.update({
            "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret/+key", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.server.url("")})

    def test_the_verifier_knows_amazons_example(self):
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9", "x-amz-content-sha256": empty,
                   "x-amz-date": "20130524T000000Z"}
        self.assertEqual(
            signature("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "GET", "/test.txt", "", headers, sorted(headers), empty,
                      "20130524T000000Z", "us-east-1"),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")

    def test_an_object_is_mounted_and_read(self):
        self.server.clock_offset = 7200  # so far off that S3 refuses, until our clock is put right
        path = self.hydrant.mount("s3://bucket/disks/disk%20one+.img") / "disk one+.img"
        self.assertEqual(path.read_bytes(), self.data)
        # Once each: the reads go on with what the mount has opened, and what a refusal taught is remembered.
        self.assertEqual(sorted(self.server.refusals), ["AuthorizationHeaderMalformed", "RequestTimeTooSkewed"])
        self.assertNotIn("secret/", self.hydrant.logs())
        self.assertNotIn("AWS4-HMAC", self.hydrant.logs())

    def test_what_is_refused_says_why(self):
        self.server.secret = "another"
        told = self.hydrant.run("mount", "s3://bucket/disks/disk%20one+.img", self.temporary())
        self.assertNotEqual(told.returncode, 0)
        self.assertIn("SignatureDoesNotMatch", told.stderr)
        self.assertIn("s3://bucket/disks/disk one+.img", told.stderr)
        self.assertNotIn("secret/", told.stderr)
