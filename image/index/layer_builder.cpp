#include "image/index/layer_builder.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <optional>
#include <string_view>

#include "base/check.h"
#include "base/guarded.h"
#include "image/gzip/inflater.h"
#include "image/gzip/window_trim.h"
#include "image/index/device_writer.h"
#include "image/index/plain_reader.h"
#include "image/index/stage.h"
#include "image/index/zstd_frame.h"
#include "image/zstd/zstd_stream.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

constexpr std::string_view kGenerator = "hydrant";
constexpr size_t kBatch = 256 << 10;  // stored bytes hashed at once
constexpr size_t kPlainPiece = 512 << 10;
constexpr size_t kQueue = 8;  // tasks a stage lies behind: 4 MiB of plain bytes
constexpr int kWindowLevel = 3;

enum class Kind { kGzip, kPlain, kZstd, kUnknown };

Kind sniff(Bytes head) {
  if (head.size() >= 2 && head[0] == std::byte{0x1f} && head[1] == std::byte{0x8b}) return Kind::kGzip;
  const uint32_t magic = head.size() >= 4 ? load_le<uint32_t>(head.data()) : 0;
  if (magic == 0xfd2fb528 || (magic & 0xfffffff0) == 0x184d2a50) return Kind::kZstd;
  return plain_kind(head) == PlainKind::kUnknown ? Kind::kUnknown : Kind::kPlain;
}

}  // namespace

// Three threads: the feeder decompresses; `hasher_` hashes stored and plain bytes; `device_` reads the tar or keeps the
// EROFS image, fills the device and packs windows. Between them go bounded queues of tasks; a task owns its bytes.
// Members below "owned by" lines are touched by that thread alone until `drain`.
class LayerBuilder::Pipeline {
 public:
  Pipeline(LayerExpectation expected, LayerBuilderOptions options, DeviceSink sink)
      : expected_(std::move(expected)),
        options_(options),
        writer_(options.granule, std::move(sink)),
        reader_(writer_, options.spool),
        hasher_("hy-hash", kQueue),
        device_("hy-device", kQueue) {
    HYDRANT_CHECK(options_.span >= (256 << 10) && options_.span <= (16 << 20), "LayerBuilderOptions::span");
    HYDRANT_CHECK(
        std::has_single_bit(options_.granule) && options_.granule >= (64 << 10) && options_.granule <= (4 << 20),
        "LayerBuilderOptions::granule");
  }

  Result<> feed(Bytes stored) {
    if (failed_.load(std::memory_order_acquire)) return first_error();
    stored_size_ += stored.size();
    if (!kind_) {
      const size_t size = std::min(stored.size(), kPlainHead - head_.size());
      append(head_, stored.first(size));
      stored = stored.subspan(size);
      if (head_.size() < kPlainHead) return {};
      if (auto begun = begin(); !begun) return set_error(std::move(begun).error());
    }
    if (auto done = pass_on(stored); !done) return set_error(std::move(done).error());
    return failed_.load(std::memory_order_acquire) ? first_error() : Result<>();
  }

  Result<BuiltLayer> finish() {
    auto done = complete();
    if (!done) return fail(*first_error_or(std::move(done).error()));
    return done;
  }

 private:
  using SharedPiece = std::shared_ptr<const Buffer>;  // held by the hasher's and the device's task

  // Knows the kind by the first bytes, whatever the media type says.
  Result<> begin() {
    kind_ = sniff(head_);
    const std::string& type = expected_.media_type;
    if (type.size() > 255) return fail(Code::kInvalid, "media type of " + std::to_string(type.size()) + " bytes");
    if (*kind_ == Kind::kUnknown) {
      const bool known = type.ends_with("tar") || type.ends_with("gzip") || type.ends_with("zstd");
      return fail(known ? Code::kCorrupt : Code::kUnsupported,
                  "is neither gzip nor zstd nor tar nor EROFS (media type " + type + ")");
    }
    if (*kind_ == Kind::kZstd)
      zstd_.emplace(
          ZstdStreamOptions{.span = options_.span, .piece = kPlainPiece},
          [this](Buffer&& plain) { return take_plain(std::move(plain)), Result<>(); },
          [this](const Checkpoint& at) {
            return take_checkpoint({at, {}, {}, {}}), Result<>();
          });
    if (*kind_ == Kind::kGzip)
      inflater_.emplace(
          InflaterOptions{.span = options_.span, .piece = kPlainPiece},
          [this](Buffer&& plain) { return take_plain(std::move(plain)), Result<>(); },
          [this](CheckpointData&& checkpoint) { return take_checkpoint(std::move(checkpoint)), Result<>(); });
    return pass_on(std::exchange(head_, {}));
  }

  Result<> pass_on(Bytes stored) {
    for (; !stored.empty() && !failed_.load(std::memory_order_acquire);) {
      const Bytes part = stored.first(std::min(stored.size(), kBatch));
      stored = stored.subspan(part.size());
      if (*kind_ == Kind::kPlain) {
        take_plain(to_buffer(part));
        continue;
      }
      hasher_.submit([this, copy = to_buffer(part)] { stored_sha_.update(copy); });
      HYDRANT_TRY_VOID(zstd_ ? zstd_->feed(part) : inflater_->feed(part));
    }
    return {};
  }

  void take_plain(Buffer&& plain) {
    auto piece = std::make_shared<const Buffer>(std::move(plain));
    hasher_.submit([this, piece] { plain_sha_.update(*piece); });
    device_.submit([this, piece] { run_device([&] { return reader_.feed(*piece); }); });
  }

  void take_checkpoint(CheckpointData&& checkpoint) {
    device_.submit([this, checkpoint = std::move(checkpoint)] {
      checkpoints_.push_back(checkpoint.at);
      windows_.push_back(checkpoint.window.empty() ? Buffer() : zstd_compress(trim_window(checkpoint), kWindowLevel));
    });
  }

  template <class Step>
  void run_device(Step step) {
    if (failed_.load(std::memory_order_relaxed)) return;
    if (auto done = step(); !done) (void)set_error(std::move(done).error());
  }

  Result<BuiltLayer> complete() {
    if (failed_.load(std::memory_order_acquire)) return first_error();
    if (expected_.size && stored_size_ != *expected_.size)
      return fail(Code::kCorrupt,
                  "has " + std::to_string(stored_size_) + " bytes, expected " + std::to_string(*expected_.size));
    if (!kind_) HYDRANT_TRY_VOID(begin());
    uint64_t stored_end = stored_size_, tar_size = stored_size_;
    Compression compression = Compression::kNone;
    if (inflater_) {
      HYDRANT_TRY(auto summary, inflater_->finish());
      if (!summary.clean_tail) return fail(Code::kCorrupt, "has garbage behind its last gzip member");
      stored_end = summary.stored_end, tar_size = summary.plain_size, compression = Compression::kGzip;
    } else if (zstd_) {
      HYDRANT_TRY(auto summary, zstd_->finish());
      stored_end = summary.stored_end, tar_size = summary.plain_size, compression = Compression::kZstd;
    }
    hasher_.drain();
    device_.drain();
    if (failed_.load(std::memory_order_acquire)) return first_error();
    const Digest diff_id = plain_sha_.finish(), digest = *kind_ == Kind::kPlain ? diff_id : stored_sha_.finish();
    if (!expected_.digest.is_zero() && digest != expected_.digest)
      return fail(Code::kCorrupt, "its bytes have digest " + digest.text());
    if (!expected_.diff_id.is_zero() && diff_id != expected_.diff_id)
      return fail(Code::kCorrupt,
                  "its tar has digest " + diff_id.text() + ", the config's diff_id is " + expected_.diff_id.text());
    HYDRANT_TRY_VOID(reader_.finish());
    HYDRANT_TRY(uint64_t device_size, writer_.finish());

    LayerIndexContent content;
    content.ident = {.digest = digest,
                     .stored_size = stored_size_,
                     .media_type = expected_.media_type,
                     .diff_id = diff_id,
                     .tar_size = tar_size,
                     .compression = compression,
                     .stored_end = stored_end,
                     .device_size = device_size,
                     .granule = options_.granule,
                     .span = options_.span,
                     .generator = std::string(kGenerator)};
    content.checkpoints = std::move(checkpoints_);
    content.windows = std::move(windows_);
    content.files = std::move(writer_.files);
    content.rows = std::move(writer_.rows());
    content.leaves = std::move(writer_.leaves);
    content.decoded = reader_.decoded();
    Buffer index = encode_layer_index(content);
    const Digest root = proto::merkle_root(content.leaves, {device_size, options_.granule, kLayoutVersion});
    return BuiltLayer{.index = std::move(index),
                      .ident = content.ident,
                      .merkle_root = root,
                      .leaves = std::move(content.leaves),
                      .files = content.files.size(),
                      .lazy = content.decoded.size == 0 && is_lazy(widest_span(content.checkpoints, stored_end))};
  }

  // The first error stays; it says which layer. Release here, acquire in `feed` and `complete`.
  tl::unexpected<Error> set_error(Error error) {
    auto first = error_.lock();
    const bool named = !expected_.digest.is_zero();
    if (!*first) *first = named ? std::move(error).in("layer " + expected_.digest.text()) : std::move(error);
    failed_.store(true, std::memory_order_release);
    return fail(**first);
  }
  tl::unexpected<Error> first_error() { return fail(**error_.lock()); }
  std::optional<Error> first_error_or(Error error) {
    (void)set_error(std::move(error));
    return *error_.lock();
  }

  const LayerExpectation expected_;
  const LayerBuilderOptions options_;
  Guarded<std::optional<Error>> error_;
  std::atomic<bool> failed_ = false;

  // Owned by the feeder.
  std::optional<Kind> kind_;
  Buffer head_;  // until the kind is known
  uint64_t stored_size_ = 0;
  std::optional<Inflater> inflater_;
  std::optional<ZstdStream> zstd_;

  // Owned by the hasher.
  Sha256 stored_sha_;  // of what is compressed; a plain tar's is the same as the other
  Sha256 plain_sha_;

  // Owned by the device thread.
  std::vector<Checkpoint> checkpoints_;
  std::vector<Buffer> windows_;
  DeviceWriter writer_;
  PlainReader reader_;

  // Last, so that they stop before what they use goes.
  Stage hasher_;
  Stage device_;
};

LayerBuilder::LayerBuilder(LayerExpectation expected, LayerBuilderOptions options, DeviceSink sink)
    : pipeline_(std::make_unique<Pipeline>(std::move(expected), options, std::move(sink))) {}
LayerBuilder::~LayerBuilder() = default;
Result<> LayerBuilder::feed(Bytes stored) { return pipeline_->feed(stored); }
Result<BuiltLayer> LayerBuilder::finish() { return pipeline_->finish(); }

}  // namespace hydrant::image
