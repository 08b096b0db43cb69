// A daemon's parts around an image store that misbehaves on demand, for the tests of prepare.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "fetch/fake_control.h"
#include "fetch/prepare.h"
#include "image/index/index_fixture.h"
#include "image/toc/toc_fixture.h"
#include "image/zstd/zstd_fixture.h"
#include "proto/object_id.h"
#include "source/fake.h"

namespace hydrant::fetch {

using namespace std::chrono_literals;
using image::fixture::TarFile;

constexpr char kGzipLayer[] = "application/vnd.oci.image.layer.v1.tar+gzip";

// Stands for hydrantd: opens the object as its lookup would, and notes how the ingest ended.
struct FakeCache {
  struct Object {
    std::shared_ptr<FakeHandle> handle = std::make_shared<FakeHandle>();
    std::optional<uint64_t> size;
    bool retired = false;
  };

  class OneIngestion final : public Ingestion {
   public:
    explicit OneIngestion(Object& object) : object_(object) {}
    ~OneIngestion() override { object_.retired = !object_.size; }
    bool present() const override { return object_.size.has_value(); }
    Result<> end(uint64_t size, const proto::DeviceProof&, Deadline) override {
      object_.size = size;
      return {};
    }

   private:
    Object& object_;
  };

  BeginIngest begin() {
    return [this](const std::string& id, Deadline) -> Result<std::unique_ptr<Ingestion>> {
      std::lock_guard lock(mutex);
      if (refuse != Code::kOk) return fail(refuse, "hydrantd says no");
      auto& object = objects[id];
      uint32_t number = ++opened;
      live->open({number, number, "erofs,hydrant", id, object.handle});
      return std::make_unique<OneIngestion>(object);
    };
  }

  std::mutex mutex;
  std::map<std::string, Object> objects;
  uint32_t opened = 0;
  Code refuse = Code::kOk;
  Objects* live = nullptr;
};

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "prepareXXXXXX";
    root_ = ::mkdtemp(name.data());
    ASSERT_TRUE(make_directories(root_ + "/fetch"));
    start();
  }
  void TearDown() override {
    stop();
    queue_.stop();
    std::filesystem::remove_all(root_);
  }
  // A daemon's parts; starting again is a restart.
  void start() {
    stop();
    Paths paths{root_};
    catalogue_ = *Catalogue::open(paths.catalogue());
    credentials_ = *CredentialStore::open(paths.credentials());
    origins_ = std::make_unique<Origins>(
        paths,
        [this](const proto::SourceReference&, std::optional<bool>) -> Result<std::shared_ptr<source::ImageStore>> {
          return store_;
        },
        [this](const proto::SourceReference&, Deadline) -> Result<std::shared_ptr<source::Blob>> {
          if (remote_) return remote_;
          return fail(Code::kUnsupported, "no blobs here");
        });
    objects_ =
        std::make_unique<Objects>(shop_, *catalogue_, [this](const ObjectRow& row) { return origins_->origin(row); });
    cache_.live = objects_.get();
    streamer_ = std::make_unique<LayerStreamer>(paths, *origins_, *objects_, cache_.begin(), 2);
    preparer_ = std::make_unique<Preparer>(paths, *catalogue_, *credentials_, *origins_, *streamer_);
  }
  void stop() {
    preparer_.reset();
    streamer_.reset();
    objects_.reset();
    origins_.reset();
    catalogue_.reset();
  }

  struct Layer {
    Buffer tar;
    std::shared_ptr<source::FakeBlob> blob;
    Digest digest;
    uint64_t size = 0;
    std::map<std::string, std::string> annotations = {};
    std::string device() const { return proto::device_object_id(image::kLayoutVersion, sha256(tar).text()); }
  };
  Layer add_layer(const std::vector<TarFile>& files) {
    Buffer tar = image::fixture::tar(files), stored = image::fixture::gzip(tar);
    return add_layer(std::move(tar), std::move(stored));
  }
  Layer add_layer(Buffer tar, Buffer stored) {
    Layer layer{.tar = std::move(tar), .blob = nullptr, .digest = {}};
    layer.digest = sha256(stored);
    layer.size = stored.size();
    layer.blob = store_->add_blob(std::move(stored));
    return layer;
  }
  Layer add_layer(const image::fixture::TocBlob& blob) {
    Layer layer = add_layer(blob.tar, blob.stored);
    layer.annotations = blob.annotations;
    return layer;
  }
  void add_image(const std::string& tag, const std::vector<Layer>& layers, const std::string& type = kGzipLayer,
                 const std::string& architecture = "amd64") {
    proto::Json config = {{"architecture", architecture}, {"os", "linux"}, {"config", proto::Json::object()}};
    config["rootfs"] = {{"type", "layers"}, {"diff_ids", proto::Json::array()}};
    proto::Json manifest = {{"schemaVersion", 2}, {"mediaType", proto::media::kOciManifest}};
    manifest["layers"] = proto::Json::array();
    for (const Layer& layer : layers) {
      config["rootfs"]["diff_ids"].push_back(sha256(layer.tar).text());
      manifest["layers"].push_back({{"mediaType", type},
                                    {"digest", layer.digest.text()},
                                    {"size", layer.size},
                                    {"annotations", layer.annotations}});
    }
    std::string text = config.dump();
    config_blob_ = store_->add_blob(to_buffer(as_bytes(text)));
    manifest["config"] = {
        {"mediaType", proto::media::kOciConfig}, {"digest", sha256(as_bytes(text)).text()}, {"size", text.size()}};
    store_->add_manifest(tag, std::string(proto::media::kOciManifest), manifest.dump());
  }
  Result<proto::PrepareReply> prepare(const std::string& tag = "1", bool index_only = false,
                                      std::stop_token stop = {}) {
    proto::PrepareRequest request;
    request.source = "registry.example/app:" + tag;
    request.platform = "linux/amd64";
    request.index_only = index_only;
    request.trust = trust_;
    PrepareEvents events;
    events.progress = [this](const proto::Progress& progress) { last_progress_ = progress; };
    events.warning = [this](const std::string& text) { warnings_.push_back(text); };
    return preparer_->prepare(request, events, stop);
  }
  std::string trust_;
  std::shared_ptr<source::Blob> remote_;  // what every URL leads to
  std::shared_ptr<source::FakeStore> store_ = std::make_shared<source::FakeStore>();
  std::string root_;
  FillQueue queue_{2};
  MemoryBudget memory_{16 << 20};
  FillShop shop_{queue_, memory_, {}};
  FakeCache cache_;
  std::unique_ptr<Catalogue> catalogue_;
  std::unique_ptr<CredentialStore> credentials_;
  std::unique_ptr<Origins> origins_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<LayerStreamer> streamer_;
  std::unique_ptr<Preparer> preparer_;
  std::shared_ptr<source::FakeBlob> config_blob_;
  proto::Progress last_progress_;
  std::vector<std::string> warnings_;
};

}  // namespace hydrant::fetch
