#include "daemon/mount_record.h"

#include <gtest/gtest.h>

namespace hydrant::daemon {
namespace {

// What version 1 looks like on disk; never to be edited, only joined by later versions.
constexpr std::string_view kGolden = R"({
 "boot_id": "2f0c3a52-0d52-4a5e-a0f5-4a6d3f6f4f11",
 "device": "0:52",
 "devices": [
  "aa",
  "bb"
 ],
 "dir": "/mnt/a \"b\"",
 "domain_id": "hydrant",
 "fsid": "cc",
 "image": "{\"files\":3}",
 "meta_digest": "sha256:00",
 "mounted_at": 1700000000,
 "read_ahead_kb": 256,
 "source": "registry:5000/app:1",
 "version": 1
}
)";

MountRecord record() {
  MountRecord record;
  record.request.dir = "/mnt/a \"b\"";
  record.request.fsid = "cc";
  record.request.devices = {"aa", "bb"};
  record.request.domain_id = "hydrant";
  record.request.meta_digest = "sha256:00";
  record.request.source = "registry:5000/app:1";
  record.request.image = R"({"files":3})";
  record.request.read_ahead_kb = 256;
  record.device = "0:52";
  record.boot_id = "2f0c3a52-0d52-4a5e-a0f5-4a6d3f6f4f11";
  record.mounted_at = 1700000000;
  return record;
}

TEST(MountRecord, IsWrittenAsTheGoldenFileOfItsVersion) { EXPECT_EQ(encode(record()), kGolden); }

TEST(MountRecord, IsReadFromTheGoldenFileOfItsVersion) {
  auto decoded = decode_mount_record(kGolden);
  ASSERT_TRUE(decoded) << decoded.error().what;
  EXPECT_EQ(encode(*decoded), kGolden);
}

TEST(MountRecord, KeepsWhatTheDevicesMustHashTo) {
  MountRecord with = record();
  with.request.proofs = {{"sha256:ab", 1 << 20, 128 << 10, 1}, {}};
  auto decoded = decode_mount_record(encode(with));
  ASSERT_TRUE(decoded) << decoded.error().what;
  EXPECT_EQ(decoded->request.proofs, with.request.proofs);
}

TEST(MountRecord, KeepsWhatItsFilesAreMarkedFor) {
  MountRecord with = record();
  with.request.front = "fanotify";
  with.marked = {12, uint64_t{1} << 40};
  auto decoded = decode_mount_record(encode(with));
  ASSERT_TRUE(decoded) << decoded.error().what;
  EXPECT_EQ(decoded->request.front, "fanotify");
  EXPECT_EQ(decoded->marked, with.marked);
}

TEST(MountRecord, OfAnotherVersionOrTornIsCorrupt) {
  std::string text(kGolden);
  EXPECT_EQ(decode_mount_record(text.substr(0, text.size() / 2)).error().code, Code::kCorrupt);
  EXPECT_EQ(decode_mount_record("{}").error().code, Code::kCorrupt);
  EXPECT_EQ(decode_mount_record("[]").error().code, Code::kCorrupt);
  text.replace(text.find("\"version\": 1"), 12, "\"version\": 2");
  EXPECT_EQ(decode_mount_record(text).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::daemon
