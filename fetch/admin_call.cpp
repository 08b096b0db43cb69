#include "fetch/admin_call.h"

namespace hydrant::fetch {

Result<proto::Json> admin_call(LineSocket& socket, const proto::HydrantdRequest& request, Deadline deadline) {
  HYDRANT_TRY_VOID(socket.send(proto::encode(request), deadline));
  for (;;) {
    HYDRANT_TRY(auto line, socket.receive(deadline));
    HYDRANT_TRY(auto answer, proto::decode_answer(line));
    if (auto* error = std::get_if<Error>(&answer)) return fail(std::move(*error));
    if (auto* json = std::get_if<proto::Json>(&answer)) return std::move(*json);
  }
}

}  // namespace hydrant::fetch
