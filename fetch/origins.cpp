#include "fetch/origins.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "fetch/layer_reading.h"
#include "image/index/identity_layout.h"
#include "image/index/layer_layout.h"
#include "proto/object_id.h"
#include "source/file/file_blob.h"

namespace hydrant::fetch {

namespace {

constexpr uint64_t kMetadataGranule = 1 << 20;
// A random read of a single file costs one round trip so: a connection that has been idle begins with some 14 KB, and
// takes three for 64 KiB. Streams ask for more at once, and who reads close to what was read gets more with it.
constexpr uint64_t kFileGranule = 8 << 10;
constexpr size_t kMostOpened = 16;

// The host, or nobody for what is local.
std::string place_of(const std::string& source) {
  auto reference = proto::SourceReference::parse(source);
  if (!reference) return source;
  if (!reference->image.registry.empty()) return reference->image.registry;
  const std::string_view url = reference->url;
  auto host = url.find("://");
  return host == url.npos ? std::string() : proto::url_without_secrets(url.substr(0, url.find('/', host + 3)));
}

// Opens its blob at the first miss and keeps it.
class LazyOrigin : public Origin {
 public:
  Result<std::shared_ptr<source::Blob>> blob(Deadline deadline) final {
    HYDRANT_TRY_VOID(usable());
    // One opens it for all who miss at first. No lock is held over the network.
    std::unique_lock lock(mutex_);
    if (!opened_.wait_until(lock, deadline.at(), [&] { return blob_ || !opening_; }))
      return fail({.code = Code::kTooSlow, .what = "another reader is still opening it", .retry = true});
    if (blob_) return blob_;
    opening_ = true;
    lock.unlock();
    auto opened = open(deadline);
    lock.lock();
    opening_ = false;
    opened_.notify_all();
    if (!opened) return fail(std::move(opened).error());
    return blob_ = *std::move(opened);
  }
  void forget(const std::shared_ptr<source::Blob>& blob) final {
    std::lock_guard lock(mutex_);
    if (blob_ == blob) blob_.reset();  // another reader may have a new one already
  }

 private:
  virtual Result<std::shared_ptr<source::Blob>> open(Deadline deadline) = 0;
  virtual Result<> usable() { return {}; }
  std::mutex mutex_;
  std::condition_variable opened_;
  bool opening_ = false;
  std::shared_ptr<source::Blob> blob_;  // also held by reads under way
};

// Our own file, verified by its name when it was made; the cache's owner proves it again before mounting.
class MetadataOrigin final : public LazyOrigin {
 public:
  MetadataOrigin(std::string path, uint64_t size) : path_(std::move(path)), size_(size) {}
  Result<std::shared_ptr<const image::Layout>> layout() override {
    return std::make_shared<image::IdentityLayout>(size_, kMetadataGranule);
  }

 private:
  Result<std::shared_ptr<source::Blob>> open(Deadline) override {
    return source::FileBlob::open(path_, /*proven=*/true);
  }
  const std::string path_;
  const uint64_t size_;
};

// What stands somewhere else and is read by its index.
class IndexedOrigin : public LazyOrigin {
 public:
  IndexedOrigin(Origins& origins, ObjectRow row) : origins_(origins), row_(std::move(row)) {}
  std::string place() const final { return place_of(row_.source); }
  bool many_files() const final { return true; }
  Result<std::shared_ptr<const image::Layout>> layout() final {
    HYDRANT_TRY(auto index, origins_.index(row_));
    return image::make_layout(std::move(index), origins_.fringes(), origins_.spool());
  }

 protected:
  Origins& origins_;
  const ObjectRow row_;
};

class LayerOrigin final : public IndexedOrigin {
 public:
  using IndexedOrigin::IndexedOrigin;

 private:
  Result<std::shared_ptr<source::Blob>> open(Deadline deadline) override {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(row_.source));
    HYDRANT_TRY(auto store, origins_.store(reference, row_.plain_http));
    return store->blob(row_.layer, row_.stored_size, deadline);
  }
  Result<> usable() override { return origins_.usable(row_.id); }
};

// A remote tarball.
class TarballOrigin final : public IndexedOrigin {
 public:
  using IndexedOrigin::IndexedOrigin;

 private:
  Result<std::shared_ptr<source::Blob>> open(Deadline deadline) override {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(row_.source));
    HYDRANT_TRY(auto device, Digest::parse(row_.id));
    return origins_.open_tarball(reference, device, deadline);
  }
};

// A single remote object. Nothing proves its content but the origin's own validators.
class FileOrigin final : public LazyOrigin {
 public:
  FileOrigin(Origins& origins, ObjectRow row) : origins_(origins), row_(std::move(row)) {}
  std::string place() const override { return place_of(row_.source); }
  Result<std::shared_ptr<const image::Layout>> layout() override {
    return std::make_shared<image::IdentityLayout>(row_.stored_size, kFileGranule);
  }

 private:
  Result<std::shared_ptr<source::Blob>> open(Deadline deadline) override {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(row_.source));
    auto blob = origins_.take_opened(row_.id);
    if (!blob) {
      HYDRANT_TRY(blob, origins_.open_blob(reference, deadline));
    }
    // What is in the cache is of the version that the name was made of.
    if (file_object_id(reference, *blob) != row_.id)
      return fail(Code::kGone, reference.display() + " has changed since it was mounted; mount it again");
    return blob;
  }
  Origins& origins_;
  const ObjectRow row_;
};

}  // namespace

std::string file_object_id(const proto::SourceReference& source, const source::Blob& blob) {
  return proto::device_object_id(image::kLayoutVersion, "file\n" + source.text() + "\n" + std::to_string(blob.size()) +
                                                            "\n" + blob.version().validator);
}

Digest tarball_id(const proto::SourceReference& source, const source::Blob& blob) {
  return sha256(as_bytes("tarball\n" + file_object_id(source, blob)));
}

Result<std::shared_ptr<source::Blob>> Origins::open_tarball(const proto::SourceReference& reference,
                                                            const Digest& device, Deadline deadline) const {
  HYDRANT_TRY(auto blob, open_blob(reference, deadline));
  if (tarball_id(reference, *blob) == device) return blob;
  return fail(Code::kGone, reference.display() + " has changed since it was mounted; mount it again");
}

void Origins::opened(const std::string& device, std::shared_ptr<source::Blob> blob) {
  std::lock_guard lock(mutex_);
  if (opened_.size() >= kMostOpened) opened_.clear();
  opened_[device] = std::move(blob);
}

std::shared_ptr<source::Blob> Origins::take_opened(const std::string& device) {
  std::lock_guard lock(mutex_);
  auto found = opened_.extract(device);
  return found.empty() ? nullptr : std::move(found.mapped());
}

std::string store_name(const proto::SourceReference& reference) {
  if (reference.kind == proto::SourceKind::kOciDir) return "oci:" + reference.path;
  if (!reference.names_image()) return reference.text();
  return reference.image.registry + "/" + reference.image.repository;
}

Result<std::shared_ptr<source::ImageStore>> Origins::store(const proto::SourceReference& reference,
                                                           std::optional<bool> plain_http) {
  std::string name = store_name(reference) + (plain_http ? (*plain_http ? " http" : " https") : "");
  {
    std::lock_guard lock(mutex_);
    if (auto found = stores_.find(name); found != stores_.end()) return found->second;
  }
  HYDRANT_TRY(auto store, open_store_(reference, plain_http));
  std::lock_guard lock(mutex_);
  if (stores_.size() >= kMaxStores) stores_.clear();
  return stores_.try_emplace(name, std::move(store)).first->second;
}

void Origins::forget_stores() {
  std::lock_guard lock(mutex_);
  stores_.clear();
}

Result<std::shared_ptr<const image::LayerIndex>> Origins::index(const Digest& layer, uint64_t stored_size) {
  return load(layer, layer, stored_size);
}

Result<std::shared_ptr<const image::LayerIndex>> Origins::toc_index(const std::string& device, const Digest& layer,
                                                                    uint64_t stored_size) {
  HYDRANT_TRY(auto name, Digest::parse(device));
  HYDRANT_TRY(auto index, load(name, layer, stored_size));
  // The device's name says which table must have made it.
  if (!index->by_chunks() || toc_device_id(layer, index->toc()) != device)
    return fail(Code::kCorrupt, paths_.index(name) + " is the index of another device");
  return index;
}

Result<std::shared_ptr<const image::LayerIndex>> Origins::pushed_index(const std::string& device, const Digest& layer,
                                                                       uint64_t stored_size) {
  HYDRANT_TRY(auto name, Digest::parse(device));
  return load(name, layer, stored_size);
}

// Nothing but the origin's validator binds it; that is in the name.
Result<std::shared_ptr<const image::LayerIndex>> Origins::tarball_index(const Digest& device, uint64_t stored_size) {
  return load(device, {}, stored_size);
}

Result<std::shared_ptr<const image::LayerIndex>> Origins::index(const ObjectRow& object) {
  switch (object.kind) {
    case ObjectKind::kTocLayer: return toc_index(object.id, object.layer, object.stored_size);
    case ObjectKind::kPushedLayer:
    case ObjectKind::kLateLayer: return pushed_index(object.id, object.layer, object.stored_size);
    case ObjectKind::kTarball: {
      HYDRANT_TRY(auto device, Digest::parse(object.id));
      return tarball_index(device, object.stored_size);
    }
    default: return index(object.layer, object.stored_size);
  }
}

void Origins::refuse(const std::string& device, const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    refused_[device] = why;
  }
  if (auto name = Digest::parse(device)) ::unlink(paths_.index(*name).c_str());
}

Result<> Origins::usable(const std::string& device) {
  std::lock_guard lock(mutex_);
  auto found = refused_.find(device);
  if (found == refused_.end()) return {};
  return fail(Code::kCorrupt, found->second);
}

Result<std::shared_ptr<const image::LayerIndex>> Origins::load(const Digest& name, const Digest& layer,
                                                               uint64_t stored_size) {
  {
    std::lock_guard lock(mutex_);
    if (auto known = indexes_[name].lock()) return known;
  }
  image::LayerExpectation expected;
  expected.digest = layer;
  expected.size = stored_size;
  HYDRANT_TRY(auto index, image::LayerIndex::load_file(paths_.index(name), expected));
  std::lock_guard lock(mutex_);
  std::erase_if(indexes_, [&](const auto& entry) { return entry.first != name && entry.second.expired(); });
  indexes_[name] = index;
  return index;
}

std::shared_ptr<Origin> Origins::origin(const ObjectRow& object) {
  switch (object.kind) {
    case ObjectKind::kMetadata: return std::make_shared<MetadataOrigin>(paths_.metadata(object.id), object.size);
    case ObjectKind::kTocLayer:
    case ObjectKind::kPushedLayer:
    case ObjectKind::kLateLayer:
    case ObjectKind::kLayer: return std::make_shared<LayerOrigin>(*this, object);
    case ObjectKind::kTarball: return std::make_shared<TarballOrigin>(*this, object);
    case ObjectKind::kFile: break;
  }
  return std::make_shared<FileOrigin>(*this, object);
}

}  // namespace hydrant::fetch
