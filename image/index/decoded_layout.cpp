#include "image/index/decoded_layout.h"

#include <algorithm>
#include <thread>

#include "image/erofs/packed_file.h"
#include "image/index/layer_builder.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

LayerExpectation as_indexed(const LayerIdent& ident) {
  return {.digest = ident.digest, .size = ident.stored_size, .diff_id = ident.diff_id, .media_type = ident.media_type};
}

}  // namespace

Fill DecodedLayout::plan(ByteRange wanted) const {
  check_wanted(wanted);
  return {.device = {0, device_size()}, .stored = {0, index_->ident().stored_size}};
}

// What the builder holds, an extent of a file and one of the packed inode.
uint64_t DecodedLayout::decoder_memory() const { return (24 << 20) + 2 * kMaxErofsExtent + 4 * granule(); }

class DecodedLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const DecodedLayout& layout, DeviceSink sink)
      : sink_(std::move(sink)),
        builder_(as_indexed(layout.index_->ident()),
                 {.span = std::clamp<uint64_t>(layout.index_->ident().span, 256 << 10, 16 << 20),
                  .granule = layout.index_->ident().granule,
                  .spool = layout.spool_},
                 [this](uint64_t offset, Bytes bytes) { return take(offset, bytes); }) {}

  Result<> feed(Bytes stored) override { return builder_.feed(stored); }

  Result<> finish() override {
    auto built = builder_.finish();
    return built ? Result<>() : fail(std::move(built).error());
  }

 private:
  // The builder hands out an image's data in `finish`; what comes earlier, on its own thread, is an archive's, and so
  // not of our layer.
  Result<> take(uint64_t offset, Bytes bytes) {
    if (std::this_thread::get_id() != owner_) return fail(Code::kCorrupt, "is not the EROFS image that was indexed");
    return sink_(offset, bytes);
  }

  const std::thread::id owner_ = std::this_thread::get_id();
  const DeviceSink sink_;
  LayerBuilder builder_;  // last: its thread may still call `take`
};

std::unique_ptr<Layout::Decoder> DecodedLayout::decoder(const Fill& fill, DeviceSink sink) const {
  check_planned(fill);
  return std::make_unique<Decoding>(*this, std::move(sink));
}

Result<> DecodedLayout::prove(uint64_t offset, Bytes granules) const {
  if (auto wrong = proto::first_mismatch(index_->leaves(), granule(), offset, granules))
    return fail(Code::kCorrupt, "layer " + index_->ident().digest.text() + ": device bytes " +
                                    std::to_string(wrong->begin) + "-" + std::to_string(wrong->end) +
                                    " do not match their digest");
  return {};
}

}  // namespace hydrant::image
