#include "fetch/late_proofs.h"

#include "base/log.h"

namespace hydrant::fetch {

namespace {

constexpr Duration kLook = std::chrono::milliseconds(200);
constexpr Duration kRetry = std::chrono::minutes(1);

tl::unexpected<Error> lie(const std::string& what) {
  return fail(Code::kCorrupt, "the pushed index does not tell the layer's " + what);
}

// Spans may differ: what they yield is proven by the leaves.
Result<> compare(const image::LayerIndex& used, const image::LayerIndex& proven) {
  if (used.ident().diff_id != proven.ident().diff_id) return lie("diff_id");
  if (used.merkle_root() != proven.merkle_root() || used.leaves() != proven.leaves()) return lie("content");
  HYDRANT_TRY(auto used_files, used.files());
  HYDRANT_TRY(auto proven_files, proven.files());
  if (used_files != proven_files) return lie("files");
  return {};
}

}  // namespace

LateProofs::LateProofs(Origins& origins, LayerStreamer& streamer, FillQueue& queue)
    : origins_(origins), streamer_(streamer), queue_(queue), pool_("proof", 1) {}

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
                                    .ingest = true,
                                    .toc = {}});
    HYDRANT_TRY_VOID(wait_for(ticket));
    HYDRANT_TRY(proven, origins_.index(device.layer, device.stored_size));
  }
  auto same = compare(*used, **proven);
  if (!same && same.error().code != Code::kCorrupt) return fail(std::move(same.error()));
  return same ? std::nullopt : std::optional(std::move(same.error()));
}

}  // namespace hydrant::fetch
