// An image store that remembers: what is named by its digest is asked for once, and a tag that was resolved before
// stands in when the store cannot be reached, so that an image on this node starts without the network.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "fetch/catalogue.h"
#include "source/source.h"

namespace hydrant::fetch {

// For manifests and configs; layers are read from the store itself. Thread-safe.
class KnownStore final : public source::ImageStore {
 public:
  // How long a store is waited for when the tag is known already.
  static constexpr Duration kPatience = std::chrono::seconds(3);

  // `name` distinguishes stores in the catalogue, which outlives this.
  KnownStore(std::shared_ptr<source::ImageStore> store, std::string name, Catalogue& catalogue)
      : store_(std::move(store)), name_(std::move(name)), catalogue_(catalogue) {}

  // Tags are always asked of the store. Only when nobody answers there, or it cannot for now (429, 5xx), the catalogue
  // does; refusals are passed on.
  Result<source::StoredManifest> manifest(const std::string& reference, Deadline deadline) override;
  // In memory: at most proto::kMaxDocument bytes.
  Result<std::shared_ptr<source::Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) override;
  std::string describe() const override { return store_->describe(); }

  // For people; empty when every tag was answered by the store.
  std::string warning() const {
    std::lock_guard lock(mutex_);
    return warning_;
  }

 private:
  Result<source::StoredManifest> known(const Digest& digest);
  void remember(const Digest& digest, const std::string& media_type, const std::string& body);

  const std::shared_ptr<source::ImageStore> store_;  // shared with layer streams and fills
  const std::string name_;
  Catalogue& catalogue_;
  mutable std::mutex mutex_;
  std::string warning_;
};

}  // namespace hydrant::fetch
