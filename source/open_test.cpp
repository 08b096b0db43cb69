// Files, OCI directories, the fake, and the way from a SOURCE to a checked image.
#include "source/open.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <stop_token>
#include <thread>

#include "base/file.h"
#include "source/fake.h"
#include "source/file/file_blob.h"
#include "source/file/oci_dir.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

Deadline soon() { return Deadline::after(10s); }

Result<std::string> read(Blob& blob, ByteRange range, Deadline deadline = soon(), std::stop_token stop = {}) {
  auto bytes = read_all(blob, {.range = range, .deadline = deadline, .stop = stop});
  if (!bytes) return fail(bytes.error());
  return std::string(as_text(*bytes));
}

class InDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/hydrant-source-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, const std::string& text) {
    auto path = directory_ + "/" + name;
    EXPECT_TRUE(make_directories(std::filesystem::path(path).parent_path()));
    EXPECT_TRUE(write_file_atomic(path, as_bytes(text)));
    return path;
  }
  // A blob of an OCI layout, as a descriptor.
  std::string put(const std::string& type, const std::string& text, const std::string& more = "") {
    auto digest = sha256(as_bytes(text));
    write("blobs/sha256/" + digest.hex(), text);
    return R"({"mediaType":")" + type + R"(","digest":")" + digest.text() + R"(","size":)" +
           std::to_string(text.size()) + more + "}";
  }
  std::string put_image(const std::string& architecture, const std::string& more = "",
                        std::string_view config_type = proto::media::kOciConfig) {
    auto config = put(std::string(config_type), R"({"os":"linux","architecture":")" + architecture +
                                                    R"(","rootfs":{"type":"layers","diff_ids":[")" +
                                                    sha256(as_bytes(architecture)).text() + R"("]}})");
    auto layer = put("application/vnd.oci.image.layer.v1.tar", architecture);
    return put(std::string(proto::media::kOciManifest),
               R"({"schemaVersion":2,"config":)" + config + R"(,"layers":[)" + layer + "]}", more);
  }
  void write_index(const std::string& entries) {
    write("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    write("index.json", R"({"schemaVersion":2,"manifests":[)" + entries + "]}");
  }
  static std::string tagged(const std::string& tag) {
    return R"(,"annotations":{"org.opencontainers.image.ref.name":")" + tag + "\"}";
  }
  static std::string on(const std::string& architecture) {
    return R"(,"platform":{"os":"linux","architecture":")" + architecture + "\"}";
  }
  Result<ResolvedImage> resolve(const std::string& source, std::optional<proto::Platform> platform = {}) {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(source));
    HYDRANT_TRY(auto store, open_image_store(reference, nullptr, {}));
    return resolve_image(*store, reference.image_reference(), platform, soon());
  }
  std::string directory_;
};

using FileBlobTest = InDirectory;

TEST_F(FileBlobTest, ReadsRangesUntilTheFileChanges) {
  auto path = write("f", std::string(700'000, 'a') + "tail");
  auto blob = FileBlob::open(path).value();
  EXPECT_EQ(read(*blob, {699'999, 700'004}).value(), "atail");
  EXPECT_EQ(read(*blob, {0, 700'004}).value().size(), 700'004u);
  EXPECT_EQ(read(*blob, {0, 700'005}).error().code, Code::kInvalid);
  EXPECT_EQ(read(*blob, {0, 10}, Deadline::after(-1s)).error().code, Code::kTooSlow);
  ASSERT_EQ(::truncate(path.c_str(), 5), 0);
  EXPECT_EQ(read(*blob, {0, 1}).error().code, Code::kGone);
}

TEST_F(FileBlobTest, AFileRebuiltInItsInodeWithItsOldMtimeIsAnotherVersion) {
  auto path = write("f", "before");
  auto blob = FileBlob::open(path).value();
  auto proven = FileBlob::open(path, /*proven=*/true).value();
  struct stat before {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  struct stat after = before;
  // The file system's clock ticks a few times in a hundredth of a second.
  for (auto deadline = soon(); after.st_ctim.tv_sec == before.st_ctim.tv_sec &&
                               after.st_ctim.tv_nsec == before.st_ctim.tv_nsec && !deadline.passed();) {
    Fd fd = open_file(path, O_WRONLY).value();
    ASSERT_EQ(::pwrite(fd.get(), "after!", 6, 0), 6);
    const timespec times[] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::futimens(fd.get(), times), 0);
    ASSERT_EQ(::fstat(fd.get(), &after), 0);
  }
  ASSERT_EQ(after.st_ino, before.st_ino);
  EXPECT_NE(FileBlob::open(path).value()->version().validator, blob->version().validator);
  EXPECT_EQ(read(*blob, {0, 6}).error().code, Code::kGone);
  EXPECT_EQ(read(*proven, {0, 6}).value(), "after!") << "its reader checks a digest";
}

TEST_F(FileBlobTest, OnlyRegularFilesAreOpened) {
  EXPECT_EQ(FileBlob::open(directory_ + "/none").error().code, Code::kNotFound);
  EXPECT_EQ(FileBlob::open(directory_).error().code, Code::kUnsupported);
  ASSERT_EQ(::mkfifo((directory_ + "/fifo").c_str(), 0600), 0);
  EXPECT_EQ(FileBlob::open(directory_ + "/fifo").error().code, Code::kUnsupported);
}

using OciDirTest = InDirectory;

TEST_F(OciDirTest, TheOnlyImageNeedsNoTag) {
  write_index(put_image("amd64", tagged("v1")));
  auto image = resolve("oci:" + directory_);
  ASSERT_TRUE(image) << image.error().what;
  EXPECT_EQ(image->manifest.layers.size(), 1u);
  EXPECT_EQ(image->config.platform.architecture, "amd64");
  EXPECT_EQ(resolve("oci:" + directory_ + ":v1")->manifest_digest, image->manifest_digest);
  auto store = OciDirStore::open(directory_).value();
  const auto& layer = image->manifest.layers[0];
  EXPECT_EQ(read(*store->blob(layer.digest, layer.size, soon()).value(), {0, 5}).value(), "amd64");
  EXPECT_EQ(store->blob(layer.digest, layer.size + 1, soon()).error().code, Code::kCorrupt);
  EXPECT_EQ(store->manifest(image->manifest_digest.text(), soon())->digest, image->manifest_digest);
}

TEST_F(OciDirTest, AmbiguityAndUnknownTagsListTheTags) {
  write_index(put_image("amd64", tagged("v1")) + "," + put_image("arm64", tagged("v2")));
  auto several = resolve("oci:" + directory_).error();
  EXPECT_EQ(several.code, Code::kInvalid);
  EXPECT_THAT(several.what, HasSubstr("v1, v2"));
  auto unknown = resolve("oci:" + directory_ + ":v3").error();
  EXPECT_EQ(unknown.code, Code::kNotFound);
  EXPECT_THAT(unknown.what, HasSubstr("no tag 'v3'; there are v1, v2"));
}

TEST_F(OciDirTest, IndexesAreFollowedToThePlatform) {
  auto entries = put_image("amd64", on("amd64")) + "," + put_image("arm64", on("arm64"));
  write_index(
      put(std::string(proto::media::kOciIndex), R"({"schemaVersion":2,"manifests":[)" + entries + "]}", tagged("m")));
  EXPECT_EQ(resolve("oci:" + directory_ + ":m", proto::Platform{"linux", "arm64", ""})->config.platform.architecture,
            "arm64");
  auto none = resolve("oci:" + directory_ + ":m", proto::Platform{"linux", "s390x", ""}).error();
  EXPECT_EQ(none.code, Code::kNotFound);
  EXPECT_THAT(none.what, HasSubstr("linux/amd64, linux/arm64"));
  // The directory's own index may be the one of platforms.
  write_index(entries);
  EXPECT_EQ(resolve("oci:" + directory_, proto::Platform{"linux", "amd64", ""})->config.platform.architecture, "amd64");
}

TEST_F(OciDirTest, APlatformThatIsAskedForMustBeTheImages) {
  write_index(put_image("arm64"));
  EXPECT_TRUE(resolve("oci:" + directory_));
  EXPECT_EQ(resolve("oci:" + directory_, proto::Platform{"linux", "amd64", ""}).error().code, Code::kNotFound);
}

TEST_F(OciDirTest, WhatIsNoLayoutOrNoImageIsNamed) {
  EXPECT_EQ(resolve("oci:" + directory_ + "/none").error().code, Code::kNotFound);
  EXPECT_THAT(resolve("oci:" + directory_).error().what, HasSubstr("no file oci-layout"));
  EXPECT_EQ(resolve("oci:" + write("archive.tar", "x")).error().code, Code::kUnsupported);
  write_index("");
  EXPECT_EQ(resolve("oci:" + directory_).error().code, Code::kNotFound);
  write_index(put_image("amd64", "", "application/vnd.cncf.helm.config.v1+json"));
  auto chart = resolve("oci:" + directory_).error();
  EXPECT_EQ(chart.code, Code::kUnsupported);
  EXPECT_THAT(chart.what, HasSubstr("a Helm chart"));
  EXPECT_THAT(chart.what, HasSubstr(directory_));
  write("oci-layout", "{}");
  EXPECT_EQ(resolve("oci:" + directory_).error().code, Code::kUnsupported);
}

TEST_F(OciDirTest, MissingAndDamagedBlobsAreFound) {
  write_index(put_image("amd64"));
  auto image = resolve("oci:" + directory_).value();
  auto path = directory_ + "/blobs/sha256/" + image.manifest.config.digest.hex();
  auto config = read_file(path).value();
  config[0] = ' ';
  ASSERT_TRUE(write_file_atomic(path, as_bytes(config)));
  EXPECT_EQ(resolve("oci:" + directory_).error().code, Code::kCorrupt);
  std::filesystem::remove(path);
  auto missing = resolve("oci:" + directory_).error();
  EXPECT_EQ(missing.code, Code::kNotFound);
  EXPECT_THAT(missing.what, HasSubstr(image.manifest.config.digest.text()));
}

TEST(OpenBlob, KindsThatAreNoFilesAreRefused) {
  auto open = [](const char* source) {
    return open_blob(proto::SourceReference::parse(source).value(), nullptr, nullptr, soon()).error().code;
  };
  EXPECT_EQ(open("s3://bucket/"), Code::kInvalid);
  EXPECT_EQ(open("alpine"), Code::kInvalid);
  EXPECT_EQ(open("file:///no/such/file"), Code::kNotFound);
  EXPECT_EQ(open_image_store(proto::SourceReference::parse("file:///x").value(), nullptr, {}).error().code,
            Code::kInvalid);
}

TEST(FakeBlob, MisbehavesAsTold) {
  using Kind = FakeAnswer::Kind;
  FakeBlob blob(to_buffer(as_bytes(std::string(200'000, 'a'))));
  EXPECT_EQ(read(blob, {0, 3}).value(), "aaa");
  blob.answer({.kind = Kind::kFail, .after = 1, .error = {.code = Code::kDenied, .what = "403"}}, 2);
  EXPECT_EQ(read(blob, {0, 3}).error().code, Code::kDenied);
  EXPECT_EQ(read(blob, {0, 3}).error().code, Code::kDenied);
  EXPECT_TRUE(read(blob, {0, 3}));
  blob.answer({.kind = Kind::kTruncate, .after = 2});
  blob.answer({.kind = Kind::kRepeat});
  EXPECT_EQ(read(blob, {0, 3}).error().code, Code::kCorrupt);
  EXPECT_EQ(read(blob, {0, 3}).error().code, Code::kCorrupt);
  blob.answer({.kind = Kind::kZeroFill, .after = 1});
  blob.answer({.kind = Kind::kFlipBit, .after = 2});
  EXPECT_EQ(read(blob, {0, 3}).value(), std::string("a\0\0", 3));
  EXPECT_EQ(read(blob, {0, 3}).value(), "aa`");
  blob.answer({.kind = Kind::kStall, .after = 1});
  EXPECT_EQ(read(blob, {0, 3}, Deadline::after(20ms)).error().code, Code::kTooSlow);
  blob.lie_about_size(300'000);
  EXPECT_EQ(blob.size(), 300'000u);
  EXPECT_EQ(read(blob, {199'999, 200'001}).value(), std::string("a\0", 2));
}

TEST(FakeBlob, HoldsReadsUntilReleasedOrStopped) {
  FakeBlob blob(to_buffer(as_bytes("abc")));
  blob.hold();
  std::stop_source stop;
  Result<std::string> first = fail(Code::kIo, ""), second = fail(Code::kIo, "");
  {
    std::jthread one([&] { first = read(blob, {0, 3}); });
    std::jthread two([&] { second = read(blob, {1, 3}, soon(), stop.get_token()); });
    ASSERT_TRUE(blob.wait_for_reads(2, soon()));
    stop.request_stop();
    two.join();
    blob.release();
  }
  EXPECT_EQ(first.value(), "abc");
  EXPECT_EQ(second.error().code, Code::kCancelled);
}

TEST(FakeStore, FindsWhatItWasGiven) {
  FakeStore store;
  auto blob = store.add_blob(to_buffer(as_bytes("abc")));
  auto digest = store.add_manifest("1", "type", "{}");
  EXPECT_EQ(store.manifest("1", soon())->digest, digest);
  EXPECT_EQ(store.manifest(digest.text(), soon())->body, "{}");
  EXPECT_EQ(store.manifest("2", soon()).error().code, Code::kNotFound);
  EXPECT_EQ(store.blob(sha256(as_bytes("abc")), 3, soon()).value(), blob);
  EXPECT_EQ(store.blob(sha256(as_bytes("abc")), 4, soon()).error().code, Code::kCorrupt);
  store.fail_with({.code = Code::kUnreachable, .what = "down"});
  EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kUnreachable);
}

}  // namespace
}  // namespace hydrant::source
