#include "fetch/prepare_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "proto/erofs_layout.h"
#include "source/fake.h"

namespace hydrant::fetch {
namespace {

// An object whose version and size a test changes.
struct VersionedBlob final : source::Blob {
  uint64_t size() const override { return bytes; }
  Result<> read(const source::ReadRequest& request, const source::Sink& sink) override {
    if (content.empty()) return fail(Code::kIo, "not read here");
    return sink(Bytes(content).subspan(request.range.begin, request.range.size()));
  }
  source::BlobVersion version() const override { return about; }
  std::string describe() const override { return "versioned"; }
  uint64_t bytes = 5000;
  Buffer content;
  source::BlobVersion about{.validator = "1", .modified = 7};
};

class PrepareFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "prepare-fileXXXXXX";
    root_ = ::mkdtemp(name.data());
    ASSERT_TRUE(make_directories(root_ + "/fetch"));
    catalogue_ = *Catalogue::open(Paths{root_}.catalogue());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  Result<proto::PrepareReply> prepare(const std::string& url = "https://host/a/b.img?token=secret") {
    return prepare_file(*proto::SourceReference::parse(url), std::nullopt, Paths{root_}, *catalogue_, origins_);
  }

  Result<proto::PrepareReply> prepare_image(const proto::erofs::Superblock& superblock, uint64_t size) {
    blob_->bytes = size;
    blob_->content.resize(size);
    if (size >= 2048) proto::erofs::store(blob_->content, proto::erofs::kSuperblockAt, superblock);
    return prepare_erofs(*proto::SourceReference::parse("https://host/a.erofs?token=secret"), std::nullopt, *catalogue_,
                         origins_);
  }

  std::string root_;
  std::shared_ptr<VersionedBlob> blob_ = std::make_shared<VersionedBlob>();
  std::unique_ptr<Catalogue> catalogue_;
  Origins origins_{
      {},
      [](const proto::SourceReference&, std::optional<bool>) -> Result<std::shared_ptr<source::ImageStore>> {
        return fail(Code::kIo, "no stores here");
      },
      [this](const proto::SourceReference&, Deadline) { return Result<std::shared_ptr<source::Blob>>(blob_); }};
};

TEST_F(PrepareFile, RecordsWhatARestartedDaemonNeedsAndShowsNoSecret) {
  auto reply = prepare();
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_EQ(reply->source, "https://host/a/b.img");
  EXPECT_EQ(reply->image.form, "file");
  ASSERT_EQ(reply->devices.size(), 1U);
  auto row = catalogue_->object(reply->devices[0]);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->size, 8192U);
  EXPECT_EQ(row->stored_size, 5000U);
  EXPECT_EQ(row->source, "https://host/a/b.img?token=secret");
  auto origin = origins_.origin(*row);
  EXPECT_TRUE(origin->blob(Deadline::after(std::chrono::seconds(1))));
  EXPECT_EQ((*origin->layout())->device_size(), 8192U);
  EXPECT_TRUE(catalogue_->object(reply->fsid));
}

TEST_F(PrepareFile, AnotherVersionIsAnotherDeviceAndTheOldOneIsGone) {
  auto first = prepare();
  auto old = origins_.origin(*catalogue_->object(first->devices[0]));
  blob_->about.validator = "2";
  auto second = prepare();
  EXPECT_NE(second->devices, first->devices);
  EXPECT_NE(second->fsid, first->fsid);
  EXPECT_EQ(old->blob(Deadline::after(std::chrono::seconds(1))).error().code, Code::kGone);
  blob_->about.validator = "1";
  EXPECT_EQ(prepare()->fsid, first->fsid);
}

TEST_F(PrepareFile, TheFirstReaderGoesOnWithTheBlobOfTheMount) {
  auto reply = prepare();
  auto mounted = blob_;
  blob_ = std::make_shared<VersionedBlob>();
  auto row = *catalogue_->object(reply->devices[0]);
  EXPECT_EQ(*origins_.origin(row)->blob(Deadline::after(std::chrono::seconds(20))), mounted);
  EXPECT_EQ(*origins_.origin(row)->blob(Deadline::after(std::chrono::seconds(20))), blob_) << "once";
}

TEST_F(PrepareFile, AForgottenBlobIsOpenedAnew) {
  auto origin = origins_.origin(*catalogue_->object(prepare()->devices[0]));
  const auto soon = Deadline::after(std::chrono::seconds(20));
  auto blob = origin->blob(soon);
  ASSERT_TRUE(blob);
  auto other = std::make_shared<VersionedBlob>();
  blob_ = other;
  origin->forget(other);
  EXPECT_EQ(*origin->blob(soon), *blob) << "not the one that was refused";
  origin->forget(*blob);
  EXPECT_EQ(*origin->blob(soon), other);
}

TEST_F(PrepareFile, AnEmptyFileHasNoDevice) {
  blob_->bytes = 0;
  auto reply = prepare();
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_TRUE(reply->devices.empty());
}

TEST_F(PrepareFile, RefusesWhatCannotBeServedInPartsOfOneVersion) {
  blob_->about.ranges = false;
  EXPECT_EQ(prepare().error().code, Code::kUnsupported);
  blob_->about = {};
  EXPECT_EQ(prepare().error().code, Code::kUnsupported);
  blob_->about.validator = "1";
  blob_->bytes = UINT64_MAX;
  EXPECT_EQ(prepare().error().code, Code::kUnsupported);
}

TEST_F(PrepareFile, AnErofsImageIsItsOwnOnlyObject) {
  auto reply = prepare_image({}, 10000);
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_TRUE(reply->devices.empty());
  EXPECT_EQ(reply->domain_id, "");
  EXPECT_EQ(reply->meta_digest, "");
  auto row = catalogue_->object(reply->fsid);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->size, 12288U);
  EXPECT_EQ(row->stored_size, 10000U);
  blob_->about.validator = "2";
  EXPECT_NE(prepare_image({}, 10000)->fsid, reply->fsid);
}

TEST_F(PrepareFile, OnlyWholeErofsImagesAre) {
  EXPECT_EQ(prepare_image({.magic = 1}, 8192).error().code, Code::kCorrupt);
  EXPECT_EQ(prepare_image({}, 1000).error().code, Code::kCorrupt);
  proto::erofs::Superblock two;
  two.feature_incompat |= proto::erofs::kIncompatDeviceTable;
  two.extra_devices = 2;
  EXPECT_EQ(prepare_image(two, 8192).error().code, Code::kUnsupported);
}

TEST(FileName, IsTheLastPartOfTheSource) {
  auto name = [](const std::string& source) { return file_name(*proto::SourceReference::parse(source)); };
  EXPECT_EQ(name("https://host/a/b%20c.img?x=/y#z"), "b c.img");
  EXPECT_EQ(name("https://host/a%2Fb"), "b");
  EXPECT_EQ(name("https://host/50%"), "50%");
  EXPECT_EQ(name("https://host"), "file");
  EXPECT_EQ(name("https://host/a/"), "file");
  EXPECT_EQ(name("https://host/a/.."), "file");
  EXPECT_EQ(name("https://host/" + std::string(300, 'a')), std::string(255, 'a'));
  EXPECT_EQ(name("file:///srv/a%25.img"), "a%.img");
}

}  // namespace
}  // namespace hydrant::fetch
