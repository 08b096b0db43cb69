// Opens where bytes come from: image stores by reference, and the origins of catalogued objects.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "fetch/catalogue.h"
#include "fetch/origin.h"
#include "fetch/paths.h"
#include "image/index/fringes.h"
#include "image/index/layer_index.h"
#include "proto/reference.h"
#include "source/source.h"

namespace hydrant::fetch {

// Stores and indexes are shared by whoever uses them at the time. Thread-safe.
class Origins {
 public:
  using OpenStore = std::function<Result<std::shared_ptr<source::ImageStore>>(const proto::SourceReference& reference,
                                                                              std::optional<bool> plain_http)>;
  using OpenBlob =
      std::function<Result<std::shared_ptr<source::Blob>>(const proto::SourceReference& reference, Deadline deadline)>;

  Origins(Paths paths, OpenStore open_store, OpenBlob open_blob)
      : paths_(std::move(paths)), open_store_(std::move(open_store)), open_blob_(std::move(open_blob)) {}

  // One store for each repository or directory, however often it is asked for.
  Result<std::shared_ptr<source::ImageStore>> store(const proto::SourceReference& reference,
                                                    std::optional<bool> plain_http);
  // After new credentials: the next store() opens anew.
  void forget_stores();

  // Of a layer whose index stands in our own store; checked against the layer's digest and size.
  Result<std::shared_ptr<const image::LayerIndex>> index(const Digest& layer, uint64_t stored_size);

  // Of a layer that is read by its table of contents: the index that makes this device of it.
  Result<std::shared_ptr<const image::LayerIndex>> toc_index(const std::string& device, const Digest& layer,
                                                             uint64_t stored_size);

  // Of a layer that is read by an index that was pushed: the one that the device is named by.
  Result<std::shared_ptr<const image::LayerIndex>> pushed_index(const std::string& device, const Digest& layer,
                                                                uint64_t stored_size);

  // Of a remote tarball.
  Result<std::shared_ptr<const image::LayerIndex>> tarball_index(const Digest& device, uint64_t stored_size);

  // The one of the four that a device is read by.
  Result<std::shared_ptr<const image::LayerIndex>> index(const ObjectRow& object);

  // The device was found to be described wrongly: its origin supplies nothing from now on, and its index is dropped.
  void refuse(const std::string& device, const std::string& why);
  // kCorrupt for such a device.
  Result<> usable(const std::string& device);

  // Where a layout may put a layer that it has to see whole.
  std::string spool() const { return paths_.spool(); }

  // What the layouts of all layers keep of granules that they have read in part.
  std::shared_ptr<image::Fringes> fringes() const { return fringes_; }

  // Nothing is opened until the origin is asked. Must not outlive this.
  std::shared_ptr<Origin> origin(const ObjectRow& object);

  // kGone when the object is another version than the one that the tarball's device was named by.
  Result<std::shared_ptr<source::Blob>> open_tarball(const proto::SourceReference& reference, const Digest& device,
                                                     Deadline deadline) const;

  // A single file is opened when it is mounted; its first reader goes on with that blob instead of asking again.
  void opened(const std::string& device, std::shared_ptr<source::Blob> blob);
  // Null when there is none.
  std::shared_ptr<source::Blob> take_opened(const std::string& device);

  Result<std::shared_ptr<source::Blob>> open_blob(const proto::SourceReference& reference, Deadline deadline) const {
    return open_blob_(reference, deadline);
  }

 private:
  static constexpr size_t kMaxStores = 64;
  static constexpr uint64_t kFringes = 8 << 20;  // bytes: some 120 borders of spans

  Result<std::shared_ptr<const image::LayerIndex>> load(const Digest& name, const Digest& layer, uint64_t stored_size);

  const Paths paths_;
  const OpenStore open_store_;
  const OpenBlob open_blob_;
  const std::shared_ptr<image::Fringes> fringes_ = std::make_shared<image::Fringes>(kFringes);
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<source::ImageStore>> stores_;
  std::map<Digest, std::weak_ptr<const image::LayerIndex>> indexes_;  // by the name of the file
  std::map<std::string, std::shared_ptr<source::Blob>> opened_;       // by device
  std::map<std::string, std::string> refused_;                        // device: why
};

// The cookie key of a single file's device: another one for each version of it.
std::string file_object_id(const proto::SourceReference& source, const source::Blob& blob);

// The same of a tarball whose tree is mounted.
Digest tarball_id(const proto::SourceReference& source, const source::Blob& blob);

// The text that names a reference's store, whatever image of it is meant.
std::string store_name(const proto::SourceReference& reference);

}  // namespace hydrant::fetch
