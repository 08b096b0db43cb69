// One connection of the admin socket: decodes a request, does it, encodes the answer.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/line_socket.h"
#include "cachefiles/engine.h"
#include "daemon/culler.h"
#include "daemon/mounts.h"
#include "daemon/objects.h"
#include "daemon/scrubber.h"

namespace hydrant::daemon {

// What a session may reach. All outlive the admin server.
struct AdminScope {
  cachefiles::Engine& engine;
  Objects& objects;
  Mounts& mounts;
  Pins& pins;
  Culler* culler;      // null for a bare engine, whose program culls
  Scrubber* scrubber;  // null for a bare engine
  std::function<proto::StatusReply()> status;
  std::function<Result<>()> stop;  // puts everything away, then lets the process end
  Duration open_limit = std::chrono::seconds(30);
};

// Owned by the connection's thread. Ingests that were begun and not ended are aborted with it.
class AdminSession final : public LineSession {
 public:
  // A user daemon may do what it needs to fill the cache, and nothing to mounts or to hydrantd.
  enum class Peer { kRoot, kUserDaemon };
  AdminSession(const AdminScope& scope, Peer peer) : scope_(scope), peer_(peer) {}
  ~AdminSession() override;

  std::string answer(std::string_view request, LineTalk& talk) override;

 private:
  std::string handle(const proto::MountRequest& request, LineTalk& talk);
  std::string handle(const proto::UmountRequest& request, LineTalk& talk);
  std::string handle(const proto::RepairRequest& request, LineTalk& talk);
  std::string handle(const proto::ListRequest& request, LineTalk& talk);
  std::string handle(const proto::StatMountRequest& request, LineTalk& talk);
  std::string handle(const proto::IngestBeginRequest& request, LineTalk& talk);
  std::string handle(const proto::IngestEndRequest& request, LineTalk& talk);
  std::string handle(const proto::IngestAbortRequest& request, LineTalk& talk);
  std::string handle(const proto::EngineRequest& request, LineTalk& talk);
  std::string handle(const proto::TouchedRequest& request, LineTalk& talk);
  std::string handle(const proto::ReopenRequest& request, LineTalk& talk);
  std::string handle(const proto::WithdrawRequest& request, LineTalk& talk);
  std::string handle(const proto::GcRequest& request, LineTalk& talk);
  std::string handle(const proto::StatusRequest& request, LineTalk& talk);
  std::string handle(const proto::StopRequest& request, LineTalk& talk);

  static Result<> complete_ingest(const Object& object, const proto::IngestEndRequest& request);
  Result<std::shared_ptr<Object>> take_ingest(const ObjectKey& key);

  const AdminScope& scope_;
  const Peer peer_;
  std::map<ObjectKey, std::shared_ptr<Object>> ingests_;
};

}  // namespace hydrant::daemon
