#include "base/file.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

namespace hydrant {

Result<Fd> open_file(const std::string& path, int flags, unsigned mode) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return fail_sys(errno, "open " + path);
  return fd;
}

Result<size_t> pread_some(int fd, MutableBytes out, uint64_t offset) {
  size_t done = 0;
  while (done < out.size()) {
    ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys(errno, "read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Result<> pread_exact(int fd, MutableBytes out, uint64_t offset) {
  HYDRANT_TRY(size_t done, pread_some(fd, out, offset));
  if (done != out.size()) return fail(Code::kCorrupt, "file ends early");
  return {};
}

Result<> pwrite_all(int fd, Bytes bytes, uint64_t offset) {
  while (!bytes.empty()) {
    ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys(errno, "write");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Result<std::string> read_file(const std::string& path, size_t limit) {
  HYDRANT_TRY(Fd fd, open_file(path, O_RDONLY));
  std::string text;
  // Files of /proc have no size, so read until the end instead of asking for it.
  for (;;) {
    size_t old = text.size();
    size_t step = std::max<size_t>(4096, old);
    text.resize(old + step);
    HYDRANT_TRY(size_t n, pread_some(fd.get(), std::as_writable_bytes(std::span(text).subspan(old)), old));
    text.resize(old + n);
    if (text.size() > limit) return fail(Code::kInvalid, path + " is longer than " + std::to_string(limit) + " bytes");
    if (n < step) return text;
  }
}

Result<> write_file_atomic(const std::string& path, Bytes bytes, unsigned mode) {
  std::string temporary = path + ".XXXXXX";
  Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return fail_sys(errno, "create " + temporary);
  auto written = [&]() -> Result<> {
    HYDRANT_TRY_VOID(pwrite_all(fd.get(), bytes, 0));
    if (::fchmod(fd.get(), mode) || ::fsync(fd.get()) || ::rename(temporary.c_str(), path.c_str()))
      return fail_sys(errno, "replace");
    return {};
  }();
  if (!written) {
    ::unlink(temporary.c_str());
    return fail(std::move(written.error()).in(path));
  }
  auto parent = std::filesystem::path(path).parent_path().string();
  HYDRANT_TRY(Fd directory, open_file(parent.empty() ? "." : parent, O_RDONLY | O_DIRECTORY));
  if (::fsync(directory.get())) return fail_sys(errno, "fsync " + parent);
  return {};
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit)) return;
  limit.rlim_cur = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, kMostDescriptors));
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

Result<> make_directories(const std::string& path, unsigned mode) {
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at < path.size() && path[at] != '/') continue;
    std::string prefix = path.substr(0, at);
    if (::mkdir(prefix.c_str(), mode) && errno != EEXIST) return fail_sys(errno, "mkdir " + prefix);
  }
  struct stat status {};
  if (::stat(path.c_str(), &status)) return fail_sys(errno, "stat " + path);
  if (!S_ISDIR(status.st_mode)) return fail_sys(ENOTDIR, path);
  return {};
}

}  // namespace hydrant
