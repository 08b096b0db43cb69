#include "fetch/ingest.h"

#include "base/line_socket.h"
#include "proto/admin.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

Result<proto::Json> ask(LineSocket& socket, const proto::HydrantdRequest& request, Deadline deadline) {
  HYDRANT_TRY_VOID(socket.send(proto::encode(request), deadline));
  for (;;) {
    HYDRANT_TRY(auto line, socket.receive(deadline));
    HYDRANT_TRY(auto answer, proto::decode_answer(line));
    if (auto* error = std::get_if<Error>(&answer)) return fail(std::move(*error));
    if (auto* json = std::get_if<proto::Json>(&answer)) return std::move(*json);
  }
}

// The connection is the ingest: hydrantd retires the object when it closes without an end.
class HydrantdIngestion final : public Ingestion {
 public:
  HydrantdIngestion(LineSocket socket, std::string id, bool present)
      : socket_(std::move(socket)), id_(std::move(id)), present_(present) {}
  bool present() const override { return present_; }
  Result<> end(uint64_t size, Deadline deadline) override {
    HYDRANT_TRY(auto answer, ask(socket_, proto::IngestEndRequest{std::string(proto::kDomain), id_, size}, deadline));
    return {};
  }

 private:
  LineSocket socket_;
  const std::string id_;
  const bool present_;
};

}  // namespace

BeginIngest ingest_through(std::string hydrantd_socket) {
  return [path = std::move(hydrantd_socket)](const std::string& id,
                                             Deadline deadline) -> Result<std::unique_ptr<Ingestion>> {
    auto socket = LineSocket::connect(path, deadline);
    if (!socket) return fail(std::move(socket).error().in("hydrantd, which keeps the cache"));
    HYDRANT_TRY(auto answer, ask(*socket, proto::IngestBeginRequest{std::string(proto::kDomain), id}, deadline));
    HYDRANT_TRY(auto reply, proto::decode_reply<proto::IngestBeginReply>(answer));
    return std::make_unique<HydrantdIngestion>(*std::move(socket), id, reply.present);
  };
}

BeginIngest no_ingest() {
  return [](const std::string& id, Deadline) -> Result<std::unique_ptr<Ingestion>> {
    return fail(Code::kBusy, "object " + id + " is filled by its readers");
  };
}

}  // namespace hydrant::fetch
