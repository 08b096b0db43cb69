// Reads a layer's plain stream, whatever it is: a tar, or an EROFS image.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "image/index/device_writer.h"
#include "image/tar/tar_reader.h"

namespace hydrant::image {

enum class PlainKind { kTar, kErofs, kUnknown };

// Bytes of the start of a stream that tell its kind: up to the magic of an EROFS image. A shorter stream is no such
// image.
inline constexpr size_t kPlainHead = 1028;
PlainKind plain_kind(Bytes head);

// An EROFS image has its inodes anywhere, so it is kept in a nameless file until it is whole. Not thread-safe.
class PlainReader {
 public:
  // `device` outlives it. `spool`: a directory with room for a whole layer.
  PlainReader(DeviceWriter& device, std::string spool)
      : device_(device), spool_directory_(std::move(spool)), tar_(device) {}

  // The next bytes, cut anywhere.
  Result<> feed(Bytes plain);
  // The stream is complete: everything but the device's end is with `device` then. An EROFS image is written to it
  // here, so its digest should be known to be right.
  Result<> finish();

  // Of an EROFS image, after `finish`: what its compressed files decode to, and how they are compressed.
  Decoded decoded() const { return decoded_; }

 private:
  Result<> decide();
  Result<> take(Bytes plain);
  Result<> spool(Bytes plain);
  Result<> write_erofs_data();

  DeviceWriter& device_;
  const std::string spool_directory_;
  TarReader tar_;
  Buffer head_;  // until it is known what the stream is
  bool decided_ = false;
  Fd spool_;  // of an EROFS image
  uint64_t spooled_ = 0;
  Decoded decoded_;
};

}  // namespace hydrant::image
