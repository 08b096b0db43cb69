// Whole-file and positional I/O with one error convention. Nothing here retries but EINTR.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"

namespace hydrant {

// open(2) with O_CLOEXEC added. The error names the path.
Result<Fd> open_file(const std::string& path, int flags, unsigned mode = 0600);

// Reads until `out` is full or the file ends; yields the byte count.
Result<size_t> pread_some(int fd, MutableBytes out, uint64_t offset);
// Like pread_some, but a short read is kCorrupt.
Result<> pread_exact(int fd, MutableBytes out, uint64_t offset);
Result<> pwrite_all(int fd, Bytes bytes, uint64_t offset);

// At most `limit` bytes; a longer file is kInvalid.
Result<std::string> read_file(const std::string& path, size_t limit = 64 << 20);

// Replaces `path` in one step: temporary file beside it, fsync, rename, fsync of the directory. A crash leaves the old
// file or the new one.
Result<> write_file_atomic(const std::string& path, Bytes bytes, unsigned mode = 0600);

// Takes as many descriptors as the process may have, but not past kMostDescriptors; where that fails it keeps those it
// has. A successor of hydrantd tries each number that an event may have (front/fanotify/fan_group.h): millions cost a
// second.
inline constexpr unsigned long kMostDescriptors = 1 << 18;
void raise_descriptor_limit();

// mkdir -p.
Result<> make_directories(const std::string& path, unsigned mode = 0700);

}  // namespace hydrant
