#include "fetch/prefetcher.h"

#include <malloc.h>

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "fetch/admin_call.h"
#include "image/prefetch/access_map.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

constexpr auto kAskDeadline = std::chrono::seconds(5);
// A start is over soon; a slow one is seen again.
constexpr Duration kFirstLook = std::chrono::seconds(10), kSecondLook = std::chrono::seconds(90);
constexpr unsigned kResumeTries = 10;
constexpr size_t kMostLearned = 64;  // starts whose earlier list is remembered
// Entries this close to each other in time are fetched in the device's order, which merges them.
constexpr uint32_t kTogether = 50;  // ms
constexpr uint64_t kFileHead = 128 << 10;

std::vector<image::TimedRange> timed(const proto::DeviceTouches& touches) {
  std::vector<image::TimedRange> ranges;
  for (size_t i = 0; i + 2 < touches.ranges.size(); i += 3)
    if (auto range = make_range(touches.ranges[i], touches.ranges[i + 1]))
      ranges.push_back({*range, static_cast<uint32_t>(std::min<uint64_t>(touches.ranges[i + 2], UINT32_MAX))});
  return ranges;
}

uint64_t bytes_of(const proto::PrefetchList& list) {
  uint64_t bytes = 0;
  for (const auto& entry : list.entries) bytes += entry.length;
  return bytes;
}

uint64_t files_of(const proto::PrefetchList& list) {
  std::vector<std::pair<Digest, std::string_view>> files;
  for (const auto& entry : list.entries) files.emplace_back(entry.layer, entry.path);
  std::sort(files.begin(), files.end());
  return static_cast<uint64_t>(std::unique(files.begin(), files.end()) - files.begin());
}

proto::PrefetchReply reply_of(const proto::PrefetchList& list) {
  return {.runs = list.runs, .files = files_of(list), .bytes = bytes_of(list)};
}

// By time, but of what is wanted at about the same time neighbours stand together.
std::vector<ByteRange> in_order(std::vector<image::TimedRange> ranges) {
  std::stable_sort(ranges.begin(), ranges.end(), [](const image::TimedRange& a, const image::TimedRange& b) {
    return std::pair(a.ms / kTogether, a.device.begin) < std::pair(b.ms / kTogether, b.device.begin);
  });
  std::vector<ByteRange> out;
  for (const auto& range : ranges) {
    if (!out.empty() && out.back().end >= range.device.begin && out.back().begin <= range.device.begin)
      out.back().end = std::max(out.back().end, range.device.end);
    else
      out.push_back(range.device);
  }
  return out;
}

}  // namespace

struct Prefetcher::Layer {
  Digest diff_id;
  std::string device;  // its object
};

struct Prefetcher::Image {
  std::string fsid;
  Digest manifest;
  std::vector<Layer> layers;  // from the bottom to the top
};

namespace {

Result<LineSocket> connect_hydrantd(const std::string& path, Deadline deadline) {
  auto socket = LineSocket::connect(path, deadline);
  if (!socket) return fail(std::move(socket).error().in("hydrantd, which knows what is mounted"));
  return socket;
}

}  // namespace

Result<proto::TouchedReply> MountedImages::touched(const std::string& fsid, Deadline deadline) const {
  HYDRANT_TRY(LineSocket socket, connect_hydrantd(socket_, deadline));
  HYDRANT_TRY(auto answer, admin_call(socket, proto::TouchedRequest{fsid}, deadline));
  return proto::decode_reply<proto::TouchedReply>(answer);
}

Result<std::vector<proto::StatMountReply>> MountedImages::all(Deadline deadline) const {
  HYDRANT_TRY(LineSocket socket, connect_hydrantd(socket_, deadline));
  HYDRANT_TRY(auto answer, admin_call(socket, proto::ListRequest{}, deadline));
  HYDRANT_TRY(auto list, proto::decode_reply<proto::ListReply>(answer));
  std::vector<proto::StatMountReply> out;
  for (const auto& mount : list.mounts) {
    auto stat = admin_call(socket, proto::StatMountRequest{mount.dir}, deadline);
    if (!stat && stat.error().code == Code::kNotFound) continue;  // unmounted in between
    if (!stat) return fail(std::move(stat).error());
    HYDRANT_TRY(out.emplace_back(), proto::decode_reply<proto::StatMountReply>(*stat));
  }
  return out;
}

Result<> MountedImages::reopen(const std::string& fsid, Deadline deadline) const {
  HYDRANT_TRY(LineSocket socket, connect_hydrantd(socket_, deadline));
  HYDRANT_TRY_VOID(admin_call(socket, proto::ReopenRequest{fsid}, deadline));
  return {};
}

Result<> MountedImages::withdraw(const std::string& device, Deadline deadline) const {
  HYDRANT_TRY(LineSocket socket, connect_hydrantd(socket_, deadline));
  HYDRANT_TRY_VOID(admin_call(socket, proto::WithdrawRequest{device}, deadline));
  return {};
}

Result<Prefetcher::Image> Prefetcher::image(const std::string& fsid) {
  HYDRANT_TRY(auto row, catalogue_.image(fsid));
  return image(row);
}

// kNotFound: a single file.
Result<Prefetcher::Image> Prefetcher::image(const ImageRow& row) {
  HYDRANT_TRY(auto facts, proto::parse_image_facts(row.facts));
  if (facts.form != "image") return fail(Code::kNotFound, row.source + " is a single file: it has no prefetch list");
  Image image{.fsid = row.fsid, .manifest = {}, .layers = {}};
  HYDRANT_TRY(image.manifest, Digest::parse(facts.manifest));
  for (const auto& each : facts.layers) {
    Layer layer{.diff_id = {}, .device = {}};
    HYDRANT_TRY(layer.diff_id, Digest::parse(each.diff_id));
    // Images of older daemons do not tell.
    layer.device =
        each.device.empty() ? proto::device_object_id(image::kLayoutVersion, layer.diff_id.text()) : each.device;
    image.layers.push_back(std::move(layer));
  }
  return image;
}

Result<image::FileTable> Prefetcher::file_table(const Layer& layer) {
  HYDRANT_TRY(auto row, catalogue_.object(layer.device));
  HYDRANT_TRY(auto index, origins_.index(row));
  return index->files();
}

// kNotFound when there is none.
Result<proto::PrefetchList> Prefetcher::list(const Image& image) {
  auto text = read_file(paths_.prefetch_list(image.manifest), proto::kMaxPrefetchText);
  if (!text && text.error().sys == ENOENT)
    return fail(Code::kNotFound, "no prefetch list of " + image.manifest.text() + "; `hydrant record DIR` makes one");
  if (!text) return fail(std::move(text).error());
  return proto::decode_prefetch_list(*text);
}

void Prefetcher::expect(const std::string& fsid, bool background) {
  queue_.submit(Priority::kPrefetch, [this, fsid, background](std::stop_token) {
    auto row = catalogue_.image(fsid);
    if (!row) return;
    for (const std::string& device : row->devices)
      if (background) objects_.complete(device);
    auto known = image(*row);
    // Whoever opens a file reads its beginning first: it is fetched while the mount is being made.
    if (!known && known.error().code == Code::kNotFound)
      for (const std::string& device : row->devices) objects_.prefetch(device, {{0, kFileHead}});
    if (!known) return;
    auto replayed = replay(*known);
    if (replayed)
      log::info("prefetch.replay",
                {{"fsid", fsid.substr(0, 12)}, {"files", replayed->files}, {"bytes", replayed->bytes}});
    else if (replayed.error().code != Code::kNotFound)
      log::warn("prefetch.replay", {{"fsid", fsid}, {"reason", replayed.error().what}});
  });
  learn_later(fsid, kFirstLook);
  learn_later(fsid, kSecondLook);
}

void Prefetcher::resume() { resume_at(Instant::min(), kResumeTries); }

// hydrantd answers when it has taken up its mounts.
void Prefetcher::resume_at(Instant when, unsigned tries) {
  queue_.submit(
      Priority::kPrefetch,
      [this, tries](std::stop_token) {
        auto mounts = mounted_.all(Deadline::after(kAskDeadline));
        if (!mounts && tries > 1) return resume_at(Clock::system().now() + std::chrono::seconds(1), tries - 1);
        if (!mounts) return log::warn("prefetch.resume", {{"reason", mounts.error().what}});
        for (const auto& mount : *mounts) {
          auto facts = proto::parse_image_facts(mount.image);
          if (!facts || !facts->background) continue;
          auto row = catalogue_.image(mount.fsid);
          if (!row) continue;  // another daemon's
          for (const std::string& device : row->devices) objects_.complete(device);
          if (auto reopened = mounted_.reopen(mount.fsid, Deadline::after(kAskDeadline)); !reopened)
            log::warn("prefetch.resume", {{"fsid", mount.fsid}, {"reason", reopened.error().what}});
        }
      },
      when);
}

void Prefetcher::learn_later(const std::string& fsid, Duration after) {
  queue_.submit(
      Priority::kPrefetch,
      [this, fsid](std::stop_token) {
        auto learned = learn(fsid);
        bool nothing = !learned && (learned.error().code == Code::kNotFound || learned.error().code == Code::kInvalid);
        if (!learned && !nothing) log::warn("prefetch.learn", {{"fsid", fsid}, {"reason", learned.error().what}});
      },
      Clock::system().now() + after);
}

Result<proto::PrefetchReply> Prefetcher::learn(const std::string& fsid) {
  HYDRANT_TRY(Image image, this->image(fsid));
  HYDRANT_TRY(auto touched, mounted_.touched(fsid, Deadline::after(kAskDeadline)));
  std::vector<proto::PrefetchEntry> run;
  for (const Layer& layer : image.layers) {
    auto found = std::find_if(touched.devices.begin(), touched.devices.end(),
                              [&](const auto& device) { return device.id == layer.device; });
    if (found == touched.devices.end()) continue;
    HYDRANT_TRY(auto files, file_table(layer));
    auto entries = image::entries_of(layer.diff_id, files, timed(*found));
    run.insert(run.end(), entries.begin(), entries.end());
  }
  if (run.empty())
    return fail(Code::kInvalid, "nothing of image " + fsid +
                                    " was read through hydrantd: it lies complete in the cache, or nobody has read");

  std::lock_guard lock(learning_);
  proto::PrefetchList list;
  auto again = learned_.find(fsid);
  if (again != learned_.end() && again->second.mounted_at == touched.mounted_at) {
    list = again->second.before;
  } else {
    if (auto known = this->list(image)) {
      list = *std::move(known);
    } else if (known.error().code != Code::kNotFound) {
      log::warn("prefetch.list", {{"manifest", image.manifest.text()}, {"reason", known.error().what}});
    }
    if (learned_.size() >= kMostLearned) learned_.clear();
    learned_[fsid] = {touched.mounted_at, list};
  }
  list.subject = image.manifest.text();
  image::add_run(list, run);
  malloc_trim(0);  // file tables are large and gone
  HYDRANT_TRY_VOID(make_directories(paths_.prefetch_directory()));
  HYDRANT_TRY_VOID(write_file_atomic(paths_.prefetch_list(image.manifest), as_bytes(proto::encode(list))));
  auto reply = reply_of(list);
  log::info("prefetch.learned",
            {{"fsid", fsid.substr(0, 12)}, {"runs", reply.runs}, {"files", reply.files}, {"bytes", reply.bytes}});
  return reply;
}

Result<proto::PrefetchReply> Prefetcher::prefetch(const std::string& fsid, const std::vector<std::string>& paths) {
  HYDRANT_TRY(Image image, this->image(fsid));
  return paths.empty() ? replay(image) : fetch_paths(image, paths);
}

Result<proto::PrefetchReply> Prefetcher::replay(const Image& image) {
  HYDRANT_TRY(auto list, this->list(image));
  for (const Layer& layer : image.layers) {
    if (std::none_of(list.entries.begin(), list.entries.end(),
                     [&](const auto& entry) { return entry.layer == layer.diff_id; }))
      continue;
    HYDRANT_TRY(auto files, file_table(layer));
    objects_.prefetch(layer.device, in_order(image::ranges_of(list, layer.diff_id, files)));
  }
  return reply_of(list);
}

Result<proto::PrefetchReply> Prefetcher::fetch_paths(const Image& image, const std::vector<std::string>& paths) {
  std::vector<image::FileTable> tables;
  std::vector<const image::FileTable*> pointers;
  tables.reserve(image.layers.size());
  for (const Layer& layer : image.layers) {
    HYDRANT_TRY(auto files, file_table(layer));
    tables.push_back(std::move(files));
    pointers.push_back(&tables.back());
  }
  HYDRANT_TRY(auto tree, image::merge(pointers));
  image::TreeData data;
  for (const std::string& path : paths) HYDRANT_TRY_VOID(image::collect(tree, path, data));
  for (size_t i = 0; i < data.devices.size(); ++i) {
    std::vector<image::TimedRange> ranges;
    for (ByteRange range : data.devices[i]) ranges.push_back({range, 0});
    if (!ranges.empty()) objects_.prefetch(image.layers[i].device, in_order(std::move(ranges)));
  }
  return proto::PrefetchReply{.runs = 0, .files = data.files, .bytes = data.bytes};
}

}  // namespace hydrant::fetch
