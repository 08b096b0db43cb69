#include "daemon/admin_session.h"

#include <cerrno>

#include "base/log.h"
#include "cachefiles/trace.h"
#include "proto/cachefiles_name.h"

namespace hydrant::daemon {

namespace {

constexpr Duration kRetireLimit = std::chrono::seconds(10);
constexpr uint64_t kHashStep = 64 << 20;

ObjectKey key_of(const std::string& domain_id, const std::string& id) {
  return {"erofs," + (domain_id.empty() ? id : domain_id), id};
}

template <class Reply>
std::string line(const Result<Reply>& result) {
  return result ? proto::encode_reply(*result) : proto::encode_error(result.error());
}

template <class Request>
constexpr bool is_for_user_daemons(const Request&) {
  return std::is_same_v<Request, proto::IngestBeginRequest> || std::is_same_v<Request, proto::IngestEndRequest> ||
         std::is_same_v<Request, proto::IngestAbortRequest> || std::is_same_v<Request, proto::TouchedRequest> ||
         std::is_same_v<Request, proto::ReopenRequest> || std::is_same_v<Request, proto::WithdrawRequest> ||
         std::is_same_v<Request, proto::ListRequest> || std::is_same_v<Request, proto::StatMountRequest> ||
         std::is_same_v<Request, proto::StatusRequest>;
}

std::string line(const Result<>& result) {
  return result ? proto::encode_reply(proto::EmptyReply{}) : proto::encode_error(result.error());
}

}  // namespace

AdminSession::~AdminSession() {
  for (auto& [key, object] : ingests_) {
    log::warn("ingest-aborted", {{"id", key.id}, {"why", "its client has left"}});
    auto aborted = scope_.objects.abort_ingest(*object, Deadline::after(kRetireLimit));
    if (!aborted) log::error("ingest-abort-failed", {{"why", aborted.error().what}});
  }
}

std::string AdminSession::answer(std::string_view text, LineTalk& talk) {
  auto request = proto::decode_hydrantd_request(text);
  if (!request) return proto::encode_error(request.error());
  return std::visit(
      [&](const auto& each) {
        if (peer_ == Peer::kUserDaemon && !is_for_user_daemons(each))
          return proto::encode_error({.code = Code::kDenied, .what = "a user daemon may not ask that of hydrantd"});
        return handle(each, talk);
      },
      *request);
}

std::string AdminSession::handle(const proto::MountRequest& request, LineTalk& talk) {
  auto report = [&talk](const proto::Progress& progress) { talk.send(proto::encode_progress(progress)); };
  auto mounted = scope_.mounts.mount(request, talk.stop_token(), report);
  if (!mounted) log::warn("mount-failed", {{"dir", request.dir}, {"why", mounted.error().what}});
  return line(mounted);
}

std::string AdminSession::handle(const proto::UmountRequest& request, LineTalk&) {
  return line(scope_.mounts.umount(request.dir, request.lazy));
}

std::string AdminSession::handle(const proto::RepairRequest& request, LineTalk& talk) {
  auto report = [&talk](const proto::Progress& progress) { talk.send(proto::encode_progress(progress)); };
  return line(scope_.mounts.repair(request.dir, talk.stop_token(), report));
}

std::string AdminSession::handle(const proto::ListRequest&, LineTalk&) {
  return proto::encode_reply(scope_.mounts.list());
}

std::string AdminSession::handle(const proto::StatMountRequest& request, LineTalk&) {
  return line(scope_.mounts.stat(request.dir));
}

std::string AdminSession::handle(const proto::IngestBeginRequest& request, LineTalk& talk) {
  ObjectKey key = key_of(request.domain_id, request.id);
  if (ingests_.contains(key)) return proto::encode_error({.code = Code::kExists, .what = "already begun: " + key.id});
  auto object = scope_.objects.begin_ingest(key, {Deadline::after(scope_.open_limit), talk.stop_token()});
  if (!object) return proto::encode_error(object.error());
  if ((*object)->cookie().complete()) {
    scope_.objects.end_ingest(**object);
    return proto::encode_reply(proto::IngestBeginReply{.present = true});
  }
  ingests_.emplace(std::move(key), std::move(*object));
  return proto::encode_reply(proto::IngestBeginReply{.present = false});
}

Result<std::shared_ptr<Object>> AdminSession::take_ingest(const ObjectKey& key) {
  auto at = ingests_.find(key);
  if (at == ingests_.end()) return fail(Code::kNotFound, "no ingest of " + key.id + " on this connection");
  auto object = std::move(at->second);
  ingests_.erase(at);
  return object;
}

// What streamed in before its index was known is hashed now, from the page cache: whoever mounts it later need not.
Result<> AdminSession::complete_ingest(const Object& object, const proto::IngestEndRequest& request) {
  HYDRANT_TRY(auto proof, proto::parse_proof(request.proof));
  if (int err = object.cookie().resize(request.size)) return fail_sys(-err, "resize " + request.id);
  HYDRANT_TRY_VOID(prove(object, proof));
  if (!proof || !object.cookie().stat().proven) return {};
  for (uint64_t at = 0; at != UINT64_MAX;) at = object.cookie().scrub(at, kHashStep).next;
  if (!object.cookie().present({0, request.size}))
    return fail(Code::kCorrupt, "object " + request.id + " is not what its index says");
  return {};
}

std::string AdminSession::handle(const proto::IngestEndRequest& request, LineTalk&) {
  auto object = take_ingest(key_of(request.domain_id, request.id));
  if (!object) return proto::encode_error(object.error());
  if (auto done = complete_ingest(**object, request); !done) {
    auto aborted = scope_.objects.abort_ingest(**object, Deadline::after(kRetireLimit));
    if (!aborted) log::error("ingest-abort-failed", {{"why", aborted.error().what}});
    return proto::encode_error(done.error());
  }
  scope_.objects.end_ingest(**object);
  return proto::encode_reply(proto::EmptyReply{});
}

std::string AdminSession::handle(const proto::IngestAbortRequest& request, LineTalk&) {
  auto object = take_ingest(key_of(request.domain_id, request.id));
  if (!object) return proto::encode_error(object.error());
  return line(scope_.objects.abort_ingest(**object, Deadline::after(kRetireLimit)));
}

std::string AdminSession::handle(const proto::EngineRequest& request, LineTalk&) {
  if (request.trace) {
    if (auto chosen = cachefiles::trace::select(*request.trace); !chosen) return proto::encode_error(chosen.error());
    log::info("trace", {{"points", cachefiles::trace::selected()}});
  }
  auto listing = scope_.engine.listing(request.cookies);
  proto::EngineReply reply{.trace = cachefiles::trace::selected()};
  for (auto& row : listing.caches)
    reply.caches.push_back({row.tag, row.directory, std::string(1, row.state), row.on_demand, row.culling, row.objects,
                            row.requests, row.pins});
  for (auto& row : listing.volumes) reply.volumes.push_back({row.key, row.cookies, row.acquired});
  for (auto& row : listing.cookies)
    reply.cookies.push_back({row.volume, proto::object_name(row.key).value_or("?"), std::string(1, row.state), row.uses,
                             row.size, row.present, row.reads});
  reply.counters.insert(listing.counters.begin(), listing.counters.end());
  if (scope_.scrubber) {
    const auto scrub = scope_.scrubber->stat();
    reply.counters["scrub.passes"] = scrub.passes;
    reply.counters["scrub.ended_at"] = static_cast<uint64_t>(scrub.ended_at);
  }
  return proto::encode_reply(reply);
}

std::string AdminSession::handle(const proto::TouchedRequest& request, LineTalk&) {
  return line(scope_.mounts.touched(request.fsid));
}

std::string AdminSession::handle(const proto::ReopenRequest& request, LineTalk&) {
  return line(scope_.mounts.reopen(request.fsid));
}

std::string AdminSession::handle(const proto::WithdrawRequest& request, LineTalk&) {
  return line(scope_.mounts.withdraw(request.id));
}

std::string AdminSession::handle(const proto::GcRequest& request, LineTalk&) {
  if (!scope_.culler)
    return proto::encode_error(
        {.code = Code::kUnsupported, .what = "this cache is culled by the program that bound it"});
  if (!request.unpin.empty())
    if (auto unpinned = scope_.pins.remove(request.unpin); !unpinned) return proto::encode_error(unpinned.error());
  return line(scope_.culler->collect(request.at_most));
}

std::string AdminSession::handle(const proto::StatusRequest&, LineTalk&) {
  return proto::encode_reply(scope_.status());
}

std::string AdminSession::handle(const proto::StopRequest&, LineTalk&) { return line(scope_.stop()); }

}  // namespace hydrant::daemon
