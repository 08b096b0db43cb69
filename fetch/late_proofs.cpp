#include "fetch/late_proofs.h"

#include "base/log.h"
#include "image/index/span_check.h"

namespace hydrant::fetch {

namespace {

constexpr Duration kLook = std::chrono::milliseconds(200);
constexpr Duration kRetry = std::chrono::minutes(1);
constexpr auto kOpenDeadline = std::chrono::seconds(30);
constexpr auto kReadDeadline = std::chrono::hours(1);

tl::unexpected<Error> lie(const std::string& what) {
  return fail(Code::kCorrupt, "the pushed index does not tell the layer's " + what);
}

// Spans may differ: what they yield is proven by the leaves. Where there are none, the spans are entered one by one.
Result<> compare(const image::LayerIndex& used, const image::LayerIndex& proven) {
  if (used.proven_as_stored()) {
    if (used.rows() != proven.rows()) return lie("layout");
  } else {
    if (used.ident().diff_id != proven.ident().diff_id) return lie("diff_id");
    if (used.merkle_root() != proven.merkle_root() || used.leaves() != proven.leaves()) return lie("content");
  }
  HYDRANT_TRY(auto used_files, used.files());
  HYDRANT_TRY(auto proven_files, proven.files());
  if (used_files != proven_files) return lie("files");
  return {};
}

}  // namespace

LateProofs::LateProofs(Origins& origins, LayerStreamer& streamer, FillQueue& queue, Withdraw withdraw)
    : origins_(origins), streamer_(streamer), queue_(queue), withdraw_(std::move(withdraw)), pool_("proof", 1) {}

LateProofs::~LateProofs() { stop_.request_stop(); }

void LateProofs::expect(const ObjectRow& device, Instant not_before) {
  {
    std::lock_guard lock(mutex_);
    if (!known_.try_emplace(device.id, false).second) return;
  }
  auto run = [this, device] {
    auto proven = prove(device);
    if (stop_.stop_requested()) return;
    const std::string layer = device.layer.text();
    const bool lies = proven && *proven;
    if (lies) {
      const std::string& what = (*proven)->what;
      log::error("index.refused", {{"layer", layer}, {"device", device.id}, {"reason", what}});
      origins_.refuse(device.id, what);
      if (auto withdrawn = withdraw_(device.id); !withdrawn && withdrawn.error().code != Code::kNotFound)
        log::error("index.not-withdrawn", {{"device", device.id}, {"reason", withdrawn.error().what}});
    } else if (proven) {
      log::info("index.proven", {{"layer", layer}, {"device", device.id}});
    } else {
      log::warn("index.unproven", {{"layer", layer}, {"reason", proven.error().what}});
    }
    {
      std::lock_guard lock(mutex_);
      if (proven) {
        known_[device.id] = true;
        settles_.notify_all();
        return;
      }
      known_.erase(device.id);
    }
    expect(device, Clock::system().now() + kRetry);
  };
  queue_.submit(
      Priority::kBackground, [this, run](std::stop_token) { pool_.submit(run); }, not_before);
}

bool LateProofs::settled(const std::string& device, Deadline deadline) {
  std::unique_lock lock(mutex_);
  return settles_.wait_until(lock, deadline.at(), [&] {
    auto found = known_.find(device);
    return found != known_.end() && found->second;
  });
}

Result<> LateProofs::wait_for(LayerStreamer::Ticket& ticket) {
  while (!stop_.stop_requested())
    if (auto outcome = ticket.wait(Deadline::after(kLook))) return *std::move(outcome);
  return fail(Code::kCancelled, "the daemon ends");
}

// Reads the layer once more.
Result<> LateProofs::enter_spans(const ObjectRow& device, const image::LayerIndex& used, const Digest& diff_id) {
  HYDRANT_TRY(auto source, proto::SourceReference::parse(device.source));
  HYDRANT_TRY(auto store, origins_.store(source, device.plain_http));
  HYDRANT_TRY(auto blob, store->blob(device.layer, device.stored_size, Deadline::after(kOpenDeadline)));
  image::SpanCheck check(used);
  Sha256 layer;
  Result<> told;
  HYDRANT_TRY_VOID(
      blob->read({{0, device.stored_size}, Deadline::after(kReadDeadline), stop_.get_token()}, [&](Bytes bytes) {
        layer.update(bytes);
        if (told) told = check.feed(bytes);
        return Result<>();
      }));
  if (layer.finish() != device.layer)
    return fail({.code = Code::kIo, .what = "the layer's bytes came damaged", .retry = true});
  if (told) told = check.finish(diff_id);
  return told;
}

Result<std::optional<Error>> LateProofs::prove(const ObjectRow& device) {
  HYDRANT_TRY(auto used, origins_.index(device));
  auto proven = origins_.index(device.layer, device.stored_size);
  if (!proven) {
    HYDRANT_TRY(auto source, proto::SourceReference::parse(device.source));
    auto ticket = streamer_.stream({.source = source,
                                    .plain_http = device.plain_http,
                                    .digest = device.layer,
                                    .size = device.stored_size,
                                    .diff_id = used->ident().diff_id,
                                    .media_type = used->ident().media_type,
                                    .ingest = !used->ident().diff_id.is_zero(),  // it names the device
                                    .toc = {}});
    HYDRANT_TRY_VOID(wait_for(ticket));
    HYDRANT_TRY(proven, origins_.index(device.layer, device.stored_size));
  }
  auto same = compare(*used, **proven);
  if (same && used->proven_as_stored() && used->ident().compression == image::Compression::kGzip)
    same = enter_spans(device, *used, (*proven)->ident().diff_id);
  if (!same && same.error().code != Code::kCorrupt) return fail(std::move(same.error()));
  return same ? std::nullopt : std::optional(std::move(same.error()));
}

}  // namespace hydrant::fetch
