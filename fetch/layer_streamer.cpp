#include "fetch/layer_streamer.h"

#include "base/file.h"
#include "base/log.h"
#include "fetch/leaves.h"
#include "fetch/read_toc.h"
#include "fetch/write_all.h"
#include "image/index/layer_builder.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

constexpr auto kOpenDeadline = std::chrono::seconds(30);
constexpr auto kIngestDeadline = std::chrono::seconds(30);
constexpr auto kTocDeadline = std::chrono::minutes(2);
// The disk may need a while when it is slow; one that stays full fails the layer.
constexpr auto kWritePatience = std::chrono::seconds(5);

// What one asker learns from the stream then holds for the other: the same claims about the layer, from the same place.
bool alike(const LayerWanted& a, const LayerWanted& b) {
  return a.digest == b.digest && a.diff_id == b.diff_id && a.size == b.size && a.plain_http == b.plain_http &&
         a.toc == b.toc && a.tarball == b.tarball && store_name(a.source) == store_name(b.source);
}

// Nobody waits for a layer longer than at 64 KiB/s; a stalled transfer ends much earlier, by the source's own limits.
Deadline stream_deadline(uint64_t size) {
  return Deadline::after(std::chrono::minutes(10) + std::chrono::seconds(size >> 16));
}

}  // namespace

class LayerStreamer::Job {
 public:
  explicit Job(const LayerWanted& w) : wanted(w) {}
  const LayerWanted wanted;
  std::atomic<uint64_t> done{0};  // for people, both
  std::atomic<uint64_t> total{wanted.size};
  std::stop_source stop;
  // Guarded by the streamer's mutex.
  unsigned askers = 0;
  std::optional<Result<>> result;
};

LayerStreamer::LayerStreamer(Paths paths, Origins& origins, Objects& objects, BeginIngest begin_ingest,
                             unsigned streams)
    : paths_(std::move(paths)),
      origins_(origins),
      objects_(objects),
      begin_ingest_(std::move(begin_ingest)),
      pool_("layer", streams) {}

LayerStreamer::~LayerStreamer() {
  std::lock_guard lock(mutex_);
  for (auto& [digest, job] : jobs_) job->stop.request_stop();
}

LayerStreamer::Ticket LayerStreamer::stream(const LayerWanted& wanted) {
  std::shared_ptr<Job> job;
  {
    std::lock_guard lock(mutex_);
    auto& known = jobs_[wanted.digest];
    // A stream that is being given up, or that makes the index only, serves nobody who wants the device too.
    if (known && !known->stop.stop_requested() && (known->wanted.ingest || !wanted.ingest) &&
        alike(known->wanted, wanted)) {
      ++known->askers;
      return Ticket(*this, known);
    }
    job = known = std::make_shared<Job>(wanted);
    job->askers = 1;
  }
  pool_.submit([this, job] {
    auto result = run(*job);
    std::lock_guard lock(mutex_);
    job->result = std::move(result);
    if (auto known = jobs_.find(job->wanted.digest); known != jobs_.end() && known->second == job) jobs_.erase(known);
    finished_.notify_all();
  });
  return Ticket(*this, std::move(job));
}

void LayerStreamer::leave(const std::shared_ptr<Job>& job) {
  std::lock_guard lock(mutex_);
  if (--job->askers == 0) job->stop.request_stop();
}

LayerStreamer::Ticket::~Ticket() {
  if (job_) streamer_->leave(job_);
}

uint64_t LayerStreamer::Ticket::done() const { return job_->done.load(std::memory_order_relaxed); }
uint64_t LayerStreamer::Ticket::total() const { return job_->total.load(std::memory_order_relaxed); }

std::optional<Result<>> LayerStreamer::Ticket::wait(Deadline deadline) {
  std::unique_lock lock(streamer_->mutex_);
  streamer_->finished_.wait_until(lock, deadline.at(), [&] { return job_->result.has_value(); });
  return job_->result;
}

// False: the layer has no table of contents that serves, and must be streamed.
Result<bool> LayerStreamer::index_by_toc(Job& job) {
  const LayerWanted& wanted = job.wanted;
  HYDRANT_TRY(auto store, origins_.store(wanted.source, wanted.plain_http));
  HYDRANT_TRY(auto blob, store->blob(wanted.digest, wanted.size, Deadline::after(kOpenDeadline)));
  image::LayerExpectation expected;
  expected.digest = wanted.digest;
  expected.size = wanted.size;
  expected.media_type = wanted.media_type;
  auto built = read_toc(*blob, *wanted.toc, expected, Deadline::after(kTocDeadline), job.stop.get_token(),
                        [&](uint64_t bytes) { job.done.fetch_add(bytes, std::memory_order_relaxed); });
  if (!built) {
    if (built.error().code != Code::kUnsupported && (built.error().code != Code::kCorrupt || built.error().retry))
      return fail(std::move(built).error());
    log::warn("layer.toc", {{"layer", wanted.digest.text()}, {"reason", built.error().what}});
    return false;
  }
  HYDRANT_TRY(auto name, Digest::parse(toc_device_id(wanted.digest, wanted.toc->digest)));
  HYDRANT_TRY_VOID(make_directories(paths_.index_directory(name)));
  HYDRANT_TRY_VOID(write_file_atomic(paths_.index(name), built->index));
  job.total.store(job.done.load(std::memory_order_relaxed), std::memory_order_relaxed);
  log::info("layer.indexed", {{"layer", wanted.digest.text()},
                              {"by", image::to_string(wanted.toc->kind)},
                              {"stored", wanted.size},
                              {"fetched", job.done.load(std::memory_order_relaxed)},
                              {"device", built->ident.device_size},
                              {"index", built->index.size()},
                              {"files", built->files}});
  return true;
}

// Streams one layer. The order of the end: both digests match, the index is on the disk, the object is kept.
Result<> LayerStreamer::run(Job& job) {
  const LayerWanted& wanted = job.wanted;
  std::stop_token stop = job.stop.get_token();
  if (stop.stop_requested()) return fail(Code::kCancelled, "nobody waits for the layer");
  const std::string place = wanted.tarball ? "the tarball" : "layer " + wanted.digest.text();
  if (wanted.toc) {
    auto indexed = index_by_toc(job);
    if (!indexed) return fail(std::move(indexed).error().in(place));
    if (*indexed) return {};
  }

  // With an index the device's size is known, what the cache has of it is kept, and perhaps nothing need be fetched.
  auto index =
      wanted.tarball ? origins_.tarball_index(wanted.digest, wanted.size) : origins_.index(wanted.digest, wanted.size);
  const bool indexed = index && (wanted.tarball || (*index)->ident().diff_id == wanted.diff_id);
  auto open = [&]() -> Result<std::shared_ptr<source::Blob>> {
    if (wanted.tarball) return origins_.open_tarball(wanted.source, wanted.digest, Deadline::after(kOpenDeadline));
    HYDRANT_TRY(auto store, origins_.store(wanted.source, wanted.plain_http));
    return store->blob(wanted.digest, wanted.size, Deadline::after(kOpenDeadline));
  };
  std::shared_ptr<source::Blob> blob;
  if (!indexed) {
    HYDRANT_TRY(blob, open());
  }

  std::unique_ptr<Objects::Ingest> opened;
  std::unique_ptr<Ingestion> ingestion;
  std::shared_ptr<ObjectHandle> handle;  // shared with objects_, which reads its CLOSE
  bool in_cache = false;                 // complete, or being read through a mount
  if (wanted.ingest) {
    const std::string id =
        wanted.tarball ? wanted.digest.hex() : proto::device_object_id(image::kLayoutVersion, wanted.diff_id.text());
    if (auto expected = objects_.expect_ingest(id, indexed ? (*index)->ident().device_size : proto::kNominalSize)) {
      opened = *std::move(expected);
      auto begun = begin_ingest_(id, Deadline::after(kIngestDeadline));
      // A mounted device keeps what it has, and is filled by its readers.
      if (!begun && begun.error().code != Code::kBusy) return fail(std::move(begun).error().in(place));
      if (begun) ingestion = *std::move(begun);
      if (ingestion && !ingestion->present()) {
        HYDRANT_TRY(handle, opened->handle(Deadline::after(kIngestDeadline)));
      }
      // The next OPEN is then a reader's, and its size the true one.
      if (!handle) opened.reset();
      in_cache = !handle;
      if (indexed && in_cache) return {};
    }
  }

  if (!blob) {
    HYDRANT_TRY(blob, open());
  }
  image::DeviceSink sink;
  if (handle)
    sink = [&](uint64_t offset, Bytes bytes) { return write_all(*handle, bytes, offset, stop, kWritePatience); };
  image::LayerExpectation expected;
  if (!wanted.tarball) expected.digest = wanted.digest;
  expected.size = wanted.size;
  expected.diff_id = wanted.diff_id;
  expected.media_type = wanted.media_type;
  image::LayerBuilder builder(expected, {.spool = paths_.spool()}, sink);
  auto read = blob->read({{0, wanted.size}, stream_deadline(wanted.size), stop}, [&](Bytes bytes) {
    job.done.fetch_add(bytes.size(), std::memory_order_relaxed);
    return bytes.empty() ? Result<>() : builder.feed(bytes);
  });
  if (!read) return fail(std::move(read).error().in(place));
  auto built = builder.finish();
  if (!built) return fail(std::move(built).error().in(place));

  const bool lazy = built->lazy;
  if (wanted.ingest && !lazy && !handle && !in_cache)
    return fail({.code = Code::kBusy, .what = place + " is being filled for another mount", .retry = true});
  HYDRANT_TRY_VOID(make_directories(paths_.index_directory(wanted.digest)));
  HYDRANT_TRY_VOID(write_file_atomic(paths_.index(wanted.digest), built->index));
  // An empty device is never mounted, so it is retired with the rest.
  if (ingestion && !ingestion->present() && built->ident.device_size > 0) {
    handle.reset();
    HYDRANT_TRY(auto proof, keep_leaves(paths_, built->ident, built->merkle_root, built->leaves));
    // Hashing takes hydrantd a second a GiB or so, and the disk may be slow.
    const auto hashing = std::chrono::seconds(built->ident.device_size >> 24);
    auto ended = ingestion->end(built->ident.device_size, proof, Deadline::after(kIngestDeadline + hashing));
    if (!ended && !lazy) return fail(std::move(ended).error().in(place));
    // The index is good, so the device can be filled lazily.
    if (!ended) log::warn("ingest.end", {{"layer", wanted.digest.text()}, {"reason", ended.error().what}});
  }
  log::info("layer.indexed", {{"layer", wanted.digest.text()},
                              {"stored", wanted.size},
                              {"device", built->ident.device_size},
                              {"index", built->index.size()},
                              {"files", built->files}});
  return {};
}

}  // namespace hydrant::fetch
