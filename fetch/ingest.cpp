#include "fetch/ingest.h"

#include "fetch/admin_call.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

// The connection is the ingest: hydrantd retires the object when it closes without an end.
class HydrantdIngestion final : public Ingestion {
 public:
  HydrantdIngestion(LineSocket socket, std::string id, bool present)
      : socket_(std::move(socket)), id_(std::move(id)), present_(present) {}
  bool present() const override { return present_; }
  Result<> end(uint64_t size, const proto::DeviceProof& proof, Deadline deadline) override {
    HYDRANT_TRY(auto answer,
                admin_call(socket_, proto::IngestEndRequest{std::string(proto::kDomain), id_, size, proof}, deadline));
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
    HYDRANT_TRY(auto answer, admin_call(*socket, proto::IngestBeginRequest{std::string(proto::kDomain), id}, deadline));
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
