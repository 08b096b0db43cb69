#include "image/index/span_check.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace hydrant::image {

SpanCheck::SpanCheck(const LayerIndex& index)
    : index_(index), stream_(Span{{}, index.ident().stored_end, index.ident().tar_size}, {}) {
  HYDRANT_CHECK(index.proven_as_stored() && index.ident().compression == Compression::kGzip,
                "only gzip has windows that could lie");
}

tl::unexpected<Error> SpanCheck::lie(size_t span) const {
  return fail(Code::kCorrupt, "the index does not enter the layer rightly at stored byte " +
                                  std::to_string(index_.span(span).start.stored_offset));
}

Result<> SpanCheck::feed(Bytes stored) {
  HYDRANT_TRY_VOID(stream_.feed(stored, [this](Bytes plain) { return take_plain(plain); }));
  while (entered_.size() < index_.span_count()) {
    const ByteRange wanted = index_.span(entered_.size()).stored();
    const uint64_t from = std::max(stored_at_, wanted.begin + gathered_.size());
    const ByteRange piece = intersect({from, wanted.end}, {stored_at_, stored_at_ + stored.size()});
    if (!piece.empty()) append(gathered_, stored.subspan(piece.begin - stored_at_, piece.size()));
    if (gathered_.size() < wanted.size()) break;
    HYDRANT_TRY_VOID(enter_span());
  }
  stored_at_ += stored.size();
  return {};
}

Result<> SpanCheck::enter_span() {
  const size_t number = entered_.size();
  if (sha256(gathered_) != index_.stored_digests()[number]) return lie(number);
  HYDRANT_TRY(const auto window, index_.window(number));
  SpanDecoder decoder(index_.span(number), window);
  Sha256 plain;
  auto done = decoder.feed(gathered_, [&](Bytes bytes) { return plain.update(bytes), Result<>(); });
  if (!done || !decoder.finish()) return lie(number);
  entered_.push_back(plain.finish());
  // The byte that the next one shares has come already.
  const bool shares = number + 1 < index_.span_count() && index_.span(number + 1).start.bits;
  gathered_.erase(gathered_.begin(), gathered_.end() - (shares ? 1 : 0));
  return {};
}

Result<> SpanCheck::take_plain(Bytes plain) {
  tar_.update(plain);
  while (!plain.empty()) {
    const uint64_t end = index_.span(expected_.size()).plain_end;
    const Bytes part = plain.first(std::min<uint64_t>(plain.size(), end - plain_at_));
    span_tar_.update(part);
    plain_at_ += part.size();
    plain = plain.subspan(part.size());
    if (plain_at_ == end) expected_.push_back(std::exchange(span_tar_, Sha256()).finish());
  }
  return {};
}

Result<> SpanCheck::finish(const Digest& diff_id) {
  HYDRANT_TRY_VOID(stream_.finish());
  if (tar_.finish() != diff_id) return fail(Code::kCorrupt, "the index does not tell the layer's diff_id");
  for (size_t i = 0; i < index_.span_count(); ++i)
    if (i >= entered_.size() || i >= expected_.size() || entered_[i] != expected_[i]) return lie(i);
  return {};
}

}  // namespace hydrant::image
