#include "fetch/served.h"

#include "base/log.h"
#include "proto/reference.h"

namespace hydrant::fetch {

namespace {

constexpr size_t kLongestName = 200;
constexpr std::string_view kNameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

}  // namespace

Result<Served> parse_served(std::string_view text, const std::string& working_dir) {
  Served served;
  // No source has an '=' in front of its first ':' or '/'.
  const size_t equals = text.find('=');
  if (equals < text.find_first_of(":/")) {
    served.name = text.substr(0, equals);
    text.remove_prefix(equals + 1);
    if (served.name.empty() || served.name.size() > kLongestName ||
        served.name.find_first_not_of(kNameCharacters) != served.name.npos)
      return fail(Code::kInvalid, "\"" + served.name + "\" is no ID: 1 to " + std::to_string(kLongestName) +
                                      " letters, digits, '.', '_' and '-'");
  }
  served.source = proto::absolute_source(std::string(text), working_dir);
  HYDRANT_TRY(auto reference, proto::SourceReference::parse(served.source));
  (void)reference;
  return served;
}

Result<proto::PrepareReply> prepare_served(const Served& served, const std::string& docker_config, Preparer& preparer,
                                           Catalogue& catalogue, std::stop_token stop) {
  HYDRANT_TRY(auto reference, proto::SourceReference::parse(served.source));
  const bool image = reference.names_image();
  PrepareEvents events;
  events.progress = [](const proto::Progress&) {};
  events.warning = [](const std::string&) {};  // logged by whoever warns
  proto::PrepareRequest request;
  request.source = served.source;
  request.docker_config = docker_config;
  if (!image) request.as = "erofs";
  auto reply = preparer.prepare(request, events, stop);
  if (!reply && !image && reply.error().code == Code::kCorrupt) {
    request.as = "file";
    reply = preparer.prepare(request, events, stop);
  }
  if (!reply) return reply;
  if (!served.name.empty()) {
    auto named = catalogue.name_object(served.name, reply->fsid);
    if (!named) return fail(std::move(named).error().in(reply->source));
  }
  return reply;
}

std::string mount_command(const Served& served, const proto::PrepareReply& image) {
  std::string options = "fsid=" + (served.name.empty() ? image.fsid : served.name);
  if (!image.domain_id.empty()) options += ",domain_id=" + image.domain_id;
  return "mount -t erofs -o " + options + " none DIR";
}

}  // namespace hydrant::fetch
