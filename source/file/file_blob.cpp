#include "source/file/file_blob.h"

#include <cerrno>

#include "base/file.h"

namespace hydrant::source {

namespace {

constexpr size_t kPiece = 256 << 10;

std::string time_text(const timespec& time) { return std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec); }

bool same(const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

}  // namespace

FileBlob::FileBlob(Fd fd, std::string path, const struct stat& status, bool proven)
    : fd_(std::move(fd)),
      path_(std::move(path)),
      size_(static_cast<uint64_t>(status.st_size)),
      device_(status.st_dev),
      inode_(status.st_ino),
      mtime_(status.st_mtim),
      ctime_(status.st_ctim),
      proven_(proven) {}

BlobVersion FileBlob::version() const {
  return {.validator = std::to_string(device_) + ":" + std::to_string(inode_) + " " + time_text(mtime_) + " " +
                       time_text(ctime_),
          .modified = mtime_.tv_sec};
}

Result<std::shared_ptr<FileBlob>> FileBlob::open(const std::string& path, bool proven) {
  // O_NONBLOCK: a FIFO without a writer must not hold us here.
  HYDRANT_TRY(Fd fd, open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat status {};
  if (::fstat(fd.get(), &status)) return fail_sys(errno, "stat " + path);
  if (S_ISDIR(status.st_mode))
    return fail(Code::kUnsupported, path + " is a directory; an OCI layout is named oci:" + path);
  if (!S_ISREG(status.st_mode)) return fail(Code::kUnsupported, path + " is not a regular file");
  return std::shared_ptr<FileBlob>(new FileBlob(std::move(fd), path, status, proven));
}

Result<> FileBlob::check_unchanged() const {
  struct stat status {};
  if (::fstat(fd_.get(), &status)) return fail_sys(errno, "stat " + path_);
  if (static_cast<uint64_t>(status.st_size) != size_ || !same(status.st_mtim, mtime_) ||
      (!proven_ && !same(status.st_ctim, ctime_)))
    return fail(Code::kGone, path_ + " has changed since it was opened; mount it again");
  return {};
}

Result<> FileBlob::read(const ReadRequest& request, const Sink& sink) {
  if (request.range.begin > request.range.end || request.range.end > size_)
    return fail(Code::kInvalid, path_ + ": read beyond its end");
  HYDRANT_TRY_VOID(check_unchanged());
  Buffer buffer(std::min<uint64_t>(kPiece, request.range.size()));
  for (uint64_t at = request.range.begin; at < request.range.end;) {
    if (request.stop.stop_requested()) return fail(Code::kCancelled, path_ + ": cancelled");
    if (request.deadline.passed()) return fail(Code::kTooSlow, path_ + ": not read by the deadline");
    auto piece = MutableBytes(buffer).first(std::min<uint64_t>(buffer.size(), request.range.end - at));
    auto done = pread_exact(fd_.get(), piece, at);
    if (!done) return fail(std::move(done.error()).in(path_));
    HYDRANT_TRY_VOID(sink(piece));
    at += piece.size();
  }
  // Bytes that came while somebody wrote are of neither version.
  return check_unchanged();
}

}  // namespace hydrant::source
