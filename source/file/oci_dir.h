// Images in a directory of the OCI image layout (image-spec 1.1, image-layout).
#pragma once

#include <memory>
#include <string>

#include "source/source.h"

namespace hydrant::source {

// Reads index.json at every manifest() so that a tag moved meanwhile is seen. Thread-safe.
class OciDirStore final : public ImageStore {
 public:
  // kNotFound: no such directory; kUnsupported: a directory that is no OCI layout.
  static Result<std::shared_ptr<OciDirStore>> open(const std::string& directory);

  // An empty reference means the only image of the directory; with several images kInvalid lists the tags. kNotFound
  // lists the tags too.
  Result<StoredManifest> manifest(const std::string& reference, Deadline deadline) override;
  // kNotFound names the missing file; kCorrupt when its size is not `size`.
  Result<std::shared_ptr<Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) override;
  std::string describe() const override { return "oci:" + directory_; }

 private:
  explicit OciDirStore(std::string directory) : directory_(std::move(directory)) {}
  const std::string directory_;
};

}  // namespace hydrant::source
