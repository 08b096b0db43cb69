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
  // `proven`: a digest names the content and whoever reads it checks that. Then a new ctime alone is no change: a copy
  // of the same bytes was renamed over the path, or somebody linked the file.
  static Result<std::shared_ptr<FileBlob>> open(const std::string& path, bool proven = false);

  uint64_t size() const override { return size_; }
  // Device, inode, mtime and ctime: a rebuilt file may get its predecessor's inode and a pinned mtime, but nobody can
  // set its ctime.
  BlobVersion version() const override;
  // kGone when size, mtime or (unless proven) ctime are no longer what they were at open().
  Result<> read(const ReadRequest& request, const Sink& sink) override;
  std::string describe() const override { return path_; }

 private:
  FileBlob(Fd fd, std::string path, const struct stat& status, bool proven);
  Result<> check_unchanged() const;

  const Fd fd_;
  const std::string path_;
  const uint64_t size_;
  const dev_t device_;
  const ino_t inode_;
  const timespec mtime_;
  const timespec ctime_;
  const bool proven_;
};

}  // namespace hydrant::source
