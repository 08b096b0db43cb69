#include "fetch/fill_stream.h"

#include <algorithm>

namespace hydrant::fetch {

FillStream::FillStream(const image::Layout& layout, const image::Fill& fill, uint64_t piece)
    : layout_(layout), fill_(fill) {
  for (uint64_t at = fill.device.begin; at < fill.device.end;) {
    image::Fill next = layout.plan({at, std::min(round_down(at, piece) + piece, fill.device.end)});
    next.device = intersect(next.device, {at, fill.device.end});
    at = next.device.end;
    pieces_.push_back(next);
  }
}

uint64_t FillStream::memory() const {
  uint64_t most = 0;
  for (const image::Fill& piece : pieces_) most = std::max(most, piece.stored.size());
  return std::min(most + layout_.granule(), fill_.stored.size() + layout_.granule());
}

Result<> FillStream::run(source::Blob& blob, Deadline deadline, std::stop_token stop,
                         const std::function<void(uint64_t)>& arrived, const image::DeviceSink& sink) const {
  Buffer held;  // stored bytes from `begin` on
  held.reserve(memory());
  uint64_t begin = fill_.stored.begin;
  uint64_t end = begin;                // of what has arrived
  uint64_t done = fill_.device.begin;  // device bytes handed out
  auto piece = pieces_.begin();

  auto in_order = [&](uint64_t offset, Bytes bytes) -> Result<> {
    if (offset != done || bytes.size() > fill_.device.end - done)
      return fail(Code::kIo, "the layout handed out bytes out of order");
    done += bytes.size();
    return sink(offset, bytes);
  };
  Error undecodable;  // told from a failure of the origin: the blob's own errors may be worth a retry
  bool decoding_failed = false;
  auto decode_ready = [&]() -> Result<> {
    for (; piece != pieces_.end() && piece->stored.end <= end; ++piece) {
      auto decoded =
          layout_.decode(*piece, Bytes(held).subspan(piece->stored.begin - begin, piece->stored.size()), in_order);
      if (!decoded) {
        decoding_failed = true;
        undecodable = decoded.error();
        return decoded;
      }
      auto next = std::next(piece);
      uint64_t keep = next == pieces_.end() ? end : std::min(next->stored.begin, end);
      held.erase(held.begin(), held.begin() + static_cast<ptrdiff_t>(keep - begin));
      begin = keep;
    }
    return {};
  };

  auto got = blob.read({fill_.stored, deadline, stop}, [&](Bytes bytes) -> Result<> {
    if (bytes.size() > fill_.stored.end - end)
      return fail({.code = Code::kCorrupt, .what = blob.describe() + " sent more than was asked for", .retry = true});
    append(held, bytes);
    end += bytes.size();
    arrived(bytes.size());
    return decode_ready();
  });
  if (decoding_failed) return fail(std::move(undecodable));
  if (!got) return got;
  if (end != fill_.stored.end)
    return fail({.code = Code::kCorrupt, .what = blob.describe() + " sent less than was asked for", .retry = true});
  HYDRANT_TRY_VOID(decode_ready());  // a fill without stored bytes
  if (done != fill_.device.end) return fail(Code::kIo, "the layout handed out a part of the fill only");
  return {};
}

}  // namespace hydrant::fetch
