#include "daemon/mount_record.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temporary_directory.h"
#include "daemon/pins.h"

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

// A record with every member that came later, and is left out where there is none; and a pin, which is one without a
// place.
constexpr std::string_view kGoldenFull = R"({
 "boot_id": "2f0c3a52-0d52-4a5e-a0f5-4a6d3f6f4f11",
 "device": "0:52",
 "devices": [
  "aa",
  "bb"
 ],
 "dir": "/mnt/a",
 "domain_id": "hydrant",
 "file": "data",
 "front": "fanotify",
 "fsid": "cc",
 "image": "{\"files\":3}",
 "marked": [
  12,
  1099511627776
 ],
 "meta_digest": "sha256:00",
 "mounted_at": 1700000000,
 "proofs": [
  {
   "granule": 131072,
   "layout_version": 1,
   "root": "sha256:ab",
   "size": 1048576
  },
  {
   "granule": 0,
   "layout_version": 0,
   "root": "",
   "size": 0
  }
 ],
 "read_ahead_kb": 0,
 "source": "registry:5000/app:1",
 "version": 1
}
)";
constexpr std::string_view kGoldenPin = R"({
 "boot_id": "",
 "device": "",
 "devices": [
  "aa",
  "bb"
 ],
 "dir": "",
 "domain_id": "hydrant",
 "fsid": "cc",
 "image": "",
 "meta_digest": "sha256:00",
 "mounted_at": 1700000000,
 "read_ahead_kb": 0,
 "source": "registry:5000/app:1",
 "version": 1
}
)";

TEST(MountRecord, OfEveryMemberIsReadAndWrittenAsItsGoldenFile) {
  auto decoded = decode_mount_record(kGoldenFull);
  ASSERT_TRUE(decoded) << decoded.error().what;
  EXPECT_EQ(decoded->request.proofs,
            (std::vector<proto::DeviceProof>{{"sha256:ab", 1 << 20, 128 << 10, 1}, {"", 0, 0, 0}}));
  EXPECT_EQ(decoded->request.file, "data");
  EXPECT_EQ(decoded->request.front, "fanotify");
  EXPECT_EQ(decoded->marked, (std::vector<uint64_t>{12, uint64_t{1} << 40}));
  EXPECT_EQ(encode(*decoded), kGoldenFull);
}

TEST(Pins, AreReadFromTheGoldenFileOfTheirVersion) {
  TemporaryDirectory directory;
  const std::string source = "registry:5000/app:1";
  ASSERT_TRUE(write_file_atomic(record_path(directory.path(), source), as_bytes(kGoldenPin)));
  Pins pins(directory.path());
  EXPECT_EQ(pins.sources(), std::vector{source});
  for (const char* id : {"aa", "bb", "cc"}) EXPECT_TRUE(pins.hold({"erofs,hydrant", id})) << id;
  EXPECT_FALSE(pins.hold({"erofs,hydrant", "dd"}));
  EXPECT_TRUE(pins.remove(source));
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
