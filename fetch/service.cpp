#include "fetch/service.h"

#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "proto/admin.h"

namespace hydrant::fetch {

namespace {

// From /proc/self/statm, whose second field is resident pages.
uint64_t resident_bytes() {
  auto text = read_file("/proc/self/statm", 4096);
  unsigned long long pages = 0;
  if (!text || std::sscanf(text->c_str(), "%*u %llu", &pages) != 1) return 0;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

class Session final : public LineSession {
 public:
  explicit Session(const Service& service) : service_(service) {}

  std::string answer(std::string_view line, LineTalk& talk) override {
    auto request = proto::decode_fetchd_request(line);
    if (!request) return proto::encode_error(request.error());
    return std::visit([&](const auto& r) { return serve(r, talk); }, *request);
  }

 private:
  std::string serve(const proto::PrepareRequest& request, LineTalk& talk) {
    PrepareEvents events;
    events.progress = [&](const proto::Progress& progress) { talk.send(proto::encode_progress(progress)); };
    events.warning = [&](const std::string& message) {
      proto::Json json = {{"event", "warning"}, {"message", message}};
      talk.send(json.dump(-1, ' ', false, proto::Json::error_handler_t::replace));
    };
    auto reply = service_.preparer.prepare(request, events, talk.stop_token());
    if (reply) {
      reply->image.background = request.background;
      reply->image.prefetch = request.prefetch;
      if (request.prefetch && !request.index_only) service_.prefetcher.expect(reply->fsid, request.background);
      return proto::encode_reply(*reply);
    }
    log::warn("prepare.failed", {{"code", to_string(reply.error().code)}, {"reason", reply.error().what}});
    return proto::encode_error(reply.error());
  }

  std::string serve(const proto::LearnRequest& request, LineTalk&) {
    auto reply = service_.prefetcher.learn(request.fsid);
    return reply ? proto::encode_reply(*reply) : proto::encode_error(reply.error());
  }

  std::string serve(const proto::PrefetchRequest& request, LineTalk&) {
    auto reply = service_.prefetcher.prefetch(request.fsid, request.paths);
    return reply ? proto::encode_reply(*reply) : proto::encode_error(reply.error());
  }

  std::string serve(const proto::StatImageRequest& request, LineTalk&) {
    auto image = service_.catalogue.image(request.fsid);
    if (!image) return proto::encode_error(image.error());
    proto::StatImageReply reply;
    for (const std::string& device : image->devices) {
      auto counters = service_.objects.counters(device);
      reply.fetched_bytes += counters->fetched_bytes;
      reply.fills += counters->fills;
      reply.prefetched += counters->prefetch_fills;
      for (const auto& [reason, count] : counters->failures()) reply.errors[reason] += count;
    }
    return proto::encode_reply(reply);
  }

  std::string serve(const proto::StatusRequest&, LineTalk&) {
    proto::StatusReply reply;
    reply.pid = ::getpid();
    reply.version = kVersion;
    reply.rss_bytes = resident_bytes();
    reply.attached = service_.loop.attached();
    reply.landlock = service_.confinement.landlock;
    reply.writes = service_.confinement.writes;
    return proto::encode_reply(reply);
  }

  std::string serve(const proto::StopRequest&, LineTalk&) {
    service_.stop();
    return proto::encode_reply(proto::EmptyReply{});
  }

  const Service& service_;
};

}  // namespace

std::unique_ptr<LineSession> make_session(const Service& service) { return std::make_unique<Session>(service); }

}  // namespace hydrant::fetch
