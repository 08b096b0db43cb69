#include "cli/render.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/version.h"
#include "cli/progress_bar.h"

namespace hydrant::cli {
namespace {

using proto::Json;

void print(std::string text) {
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void print_json(const Json& json) { print(json.dump(2, ' ', false, Json::error_handler_t::replace)); }

void render_rights(const ProcessRights& process) {
  print(fmt::format("{} ({})", process.name, process.pid));
  print(fmt::format("     user          {}", process.user));
  print(fmt::format("     capabilities  {}; at most {}{}", process.capabilities, process.bounding,
                    process.no_new_privileges ? ", and no new ones" : ""));
  print(
      fmt::format("     system calls  {}", process.seccomp == "off" ? "all" : "those of a seccomp " + process.seccomp));
  print(fmt::format("     may write     {}",
                    process.landlock == 0
                        ? "what its user may"
                        : fmt::format("{} (Landlock {})", fmt::join(process.landlock_writes, ", "), process.landlock)));
  print(fmt::format("     writes now    {}", process.open_for_writing.empty()
                                                 ? "nothing"
                                                 : fmt::format("{}", fmt::join(process.open_for_writing, ", "))));
}

double milliseconds(Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

// A reply as the daemon would send it, without the protocol's own member.
template <class Reply>
Json as_json(const Reply& reply) {
  Json json = Json::parse(proto::encode_reply(reply));
  json.erase("ok");
  return json;
}

Json image_json(const proto::ImageFacts& facts) { return Json::parse(proto::to_text(facts)); }

uint64_t share(uint64_t part, uint64_t whole) { return whole == 0 ? 100 : part * 100 / whole; }

std::string local_time(int64_t seconds) {
  std::time_t time = seconds;
  std::tm parts{};
  localtime_r(&time, &parts);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", parts);
}

}  // namespace

void render_mount(bool json, const proto::MountRequest& request, const MountTimes& times) {
  double total = milliseconds(times.prepare + times.mount);
  if (!json) return print(fmt::format("{} on {} in {:.0f} ms", request.source, request.dir, total));
  Json out = {{"dir", request.dir},         {"fsid", request.fsid}, {"source", request.source},
              {"devices", request.devices}, {"image", nullptr},     {"prepare_ms", milliseconds(times.prepare)},
              {"ready_ms", total}};
  if (auto facts = proto::parse_image_facts(request.image)) out["image"] = image_json(*facts);
  print_json(out);
}

void render_index(bool json, const proto::PrepareReply& image) {
  if (json) return print_json(as_json(image));
  const auto& facts = image.image;
  auto lazy = std::count_if(facts.layers.begin(), facts.layers.end(), [](const auto& layer) { return layer.lazy; });
  print(fmt::format("{}: {} of {} layers indexed, {} read", image.source, lazy, facts.layers.size(),
                    human_size(facts.streamed_bytes)));
  for (const auto& layer : facts.layers) {
    if (!layer.lazy) print(fmt::format("  {}: not lazy: {}", layer.digest, layer.why));
  }
  if (!image.pushed.empty()) print("  pushed as " + image.pushed);
  if (!image.converted.empty()) print("  converted to " + image.converted);
}

void render_list(bool json, const proto::ListReply& list) {
  if (json) return print_json(as_json(list));
  if (list.mounts.empty()) return;
  size_t dir_width = 3, source_width = 6;
  for (const auto& mount : list.mounts) {
    dir_width = std::max(dir_width, mount.dir.size());
    source_width = std::max(source_width, mount.source.size());
  }
  print(fmt::format("{:<{}}  {:<{}}  STATE  DEVICES  SINCE", "DIR", dir_width, "SOURCE", source_width));
  for (const auto& mount : list.mounts) {
    print(fmt::format("{:<{}}  {:<{}}  {:<5}  {:>7}  {}", mount.dir, dir_width, mount.source, source_width, mount.state,
                      mount.devices, local_time(mount.mounted_at)));
  }
}

void render_engine(bool json, const proto::EngineReply& engine) {
  if (json) return print_json(as_json(engine));
  for (const auto& cache : engine.caches)
    print(fmt::format("cache {} {} state={} mode={} culling={} objects={} requests={} pins={}", cache.tag, cache.dir,
                      cache.state, cache.on_demand ? "ondemand" : "original", cache.culling ? "yes" : "no",
                      cache.objects, cache.requests, cache.pins));
  for (const auto& volume : engine.volumes)
    print(fmt::format("volume {} cookies={}{}", volume.key, volume.cookies, volume.acquired ? "" : " relinquished"));
  for (const auto& cookie : engine.cookies)
    print(fmt::format("cookie {} {} state={} uses={} size={} present={} reads={}", cookie.volume, cookie.key,
                      cookie.state, cookie.uses, cookie.size, cookie.present, cookie.reads));
  for (const auto& [name, value] : engine.counters) print(fmt::format("{} {}", name, value));
  print("trace " + engine.trace);
}

void render_doctor(bool json, const std::vector<Check>& checks, const std::vector<ProcessRights>& processes) {
  if (!json) {
    for (const auto& check : checks) {
      print(fmt::format("{:<5}{}: {}", check.good ? "good" : "BAD", check.name, check.what));
      if (!check.good) print("     way out: " + check.way_out);
    }
    for (const auto& process : processes) render_rights(process);
    return;
  }
  Json out = {{"checks", Json::array()}, {"processes", Json::array()}};
  for (const auto& check : checks)
    out["checks"].push_back(
        {{"name", check.name}, {"good", check.good}, {"what", check.what}, {"way_out", check.way_out}});
  for (const auto& process : processes)
    out["processes"].push_back({{"name", process.name},
                                {"pid", process.pid},
                                {"user", process.user},
                                {"capabilities", process.capabilities},
                                {"bounding", process.bounding},
                                {"seccomp", process.seccomp},
                                {"no_new_privileges", process.no_new_privileges},
                                {"landlock", process.landlock},
                                {"landlock_writes", process.landlock_writes},
                                {"open_for_writing", process.open_for_writing}});
  print_json(out);
}

void render_gc(bool json, const proto::GcReply& reply) {
  if (json) return print_json(as_json(reply));
  print(fmt::format("{} freed, {} objects deleted; the cache takes {}{}", human_size(reply.freed), reply.objects,
                    human_size(reply.usage), reply.quota ? " of " + human_size(reply.quota) : std::string()));
  if (reply.pins.empty()) return;
  print(fmt::format("pinned, {}:", human_size(reply.pinned)));
  for (const std::string& source : reply.pins) print("  " + source);
}

void render_stat(bool json, const proto::StatMountReply& stat, const std::optional<proto::ImageFacts>& image,
                 const std::optional<proto::StatImageReply>& fetched, bool ours) {
  if (json) {
    Json out = as_json(stat);
    out["image"] = image ? image_json(*image) : Json(nullptr);
    out["fetch"] = fetched ? as_json(*fetched) : Json(nullptr);
    return print_json(out);
  }
  print(fmt::format("{}: {}, {}{}", stat.dir, stat.source, stat.state,
                    stat.front == "fanotify" ? ", asked by fanotify" : ""));
  if (image && image->form == "file") print(fmt::format("  file     {}", human_size(image->unpacked_bytes)));
  if (image && image->form == "tar")
    print(fmt::format("  tarball  {} files, {} stored, {} unpacked", image->files, human_size(image->compressed_bytes),
                      human_size(image->unpacked_bytes)));
  if (image && image->form == "image")
    print(fmt::format("  image    {} ({}), {} layers, {} files, {} stored, {} unpacked", image->manifest,
                      image->platform, image->layers.size(), image->files, human_size(image->compressed_bytes),
                      human_size(image->unpacked_bytes)));
  if (image) {
    for (const auto& layer : image->layers) {
      if (!layer.lazy) print(fmt::format("  not lazy {}: {}", layer.digest, layer.why));
      if (!layer.pushed.empty())
        print(
            fmt::format("  layer    {}: by an index from the registry, vouched for by {}", layer.digest, layer.pushed));
      if (!layer.toc.empty()) print(fmt::format("  layer    {}: by its {} table of contents", layer.digest, layer.toc));
    }
  }
  if (fetched) {
    print(fmt::format("  fetched  {} in {} fills since hydrant-fetchd started, {} of them ahead of any reader",
                      human_size(fetched->fetched_bytes), fetched->fills, fetched->prefetched));
    for (const auto& [reason, count] : fetched->errors) print(fmt::format("  errors   {}: {}", reason, count));
  } else if (ours) {
    print("  fetched  unknown: hydrant-fetchd does not answer");
  }
  print(fmt::format("  metadata {}  {}", stat.metadata.id, human_size(stat.metadata.size)));
  for (const auto& device : stat.devices) {
    print(fmt::format("  device   {}  {} of {} present ({} %), {}, {} reads{}", device.id, human_size(device.present),
                      human_size(device.size), share(device.present, device.size), device.front, device.reads,
                      device.verify.empty() ? std::string() : ", checked by " + device.verify));
  }
}

void render_prefetch(bool json, const std::string& what, const proto::PrefetchReply& reply) {
  if (json) return print_json(as_json(reply));
  std::string runs = reply.runs ? fmt::format(", learned from {} start{}", reply.runs, reply.runs == 1 ? "" : "s") : "";
  print(fmt::format("{}: {} of {} files{}", what, human_size(reply.bytes), reply.files, runs));
}

void render_version(bool json, const std::vector<DaemonVersion>& daemons) {
  Json out = {{"hydrant", kVersion}};
  if (!json) print(fmt::format("hydrant {}", kVersion));
  for (const auto& daemon : daemons) {
    if (json) {
      out[daemon.name] = daemon.status ? as_json(*daemon.status) : Json(nullptr);
    } else if (daemon.status) {
      print(fmt::format("{} {}, pid {}, {}", daemon.name, daemon.status->version, daemon.status->pid,
                        human_size(daemon.status->rss_bytes)));
    }
  }
  if (json) print_json(out);
}

}  // namespace hydrant::cli
