#include "fetch/fill_stream.h"

#include <optional>

namespace hydrant::fetch {

Result<> stream_fill(const image::Layout& layout, const image::Fill& fill, source::Blob& blob, Deadline deadline,
                     std::stop_token stop, const std::function<Result<>(uint64_t)>& arrived,
                     const image::DeviceSink& sink) {
  uint64_t end = fill.stored.begin;   // of what has arrived
  uint64_t done = fill.device.begin;  // of what was handed out
  auto decoder = layout.decoder(fill, [&](uint64_t offset, Bytes bytes) -> Result<> {
    if (offset != done || bytes.size() > fill.device.end - done)
      return fail(Code::kIo, "the layout handed out bytes out of order");
    done += bytes.size();
    return sink(offset, bytes);
  });
  std::optional<Error> undecodable;  // told from a failure of the origin: the blob's own errors may be worth a retry
  auto got = blob.read({fill.stored, deadline, stop}, [&](Bytes bytes) -> Result<> {
    if (bytes.size() > fill.stored.end - end)
      return fail({.code = Code::kCorrupt, .what = blob.describe() + " sent more than was asked for", .retry = true});
    end += bytes.size();
    HYDRANT_TRY_VOID(arrived(bytes.size()));
    if (bytes.empty()) return {};
    auto decoded = decoder->feed(bytes);
    if (!decoded) undecodable = decoded.error();
    return decoded;
  });
  if (undecodable) return fail(*std::move(undecodable));
  if (!got) return got;
  if (end != fill.stored.end)
    return fail({.code = Code::kCorrupt, .what = blob.describe() + " sent less than was asked for", .retry = true});
  HYDRANT_TRY_VOID(decoder->finish());
  if (done != fill.device.end) return fail(Code::kIo, "the layout handed out a part of the fill only");
  return {};
}

}  // namespace hydrant::fetch
