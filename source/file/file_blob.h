// A local file as a blob: `file:///…`, and the blobs of an OCI directory.
#pragma once

#include <sys/stat.h>

#include <ctime>
#include <memory>
#include <string>

#include "base/fd.h"
#include "source/source.h"

namespace hydrant::source {

// Thread-safe.
class FileBlob final : public Blob {
 public:
  // kNotFound, kDenied name the path; kUnsupported when it is not a regular file.
  static Result<std::shared_ptr<FileBlob>> open(const std::string& path);

  uint64_t size() const override { return size_; }
  // Inode and mtime.
  BlobVersion version() const override;
  // kGone when size or mtime are no longer what they were at open().
  Result<> read(const ReadRequest& request, const Sink& sink) override;
  std::string describe() const override { return path_; }

 private:
  FileBlob(Fd fd, std::string path, const struct stat& status);
  Result<> check_unchanged() const;

  const Fd fd_;
  const std::string path_;
  const uint64_t size_;
  const ino_t inode_;
  const timespec mtime_;
};

}  // namespace hydrant::source
