// One request to hydrantd's admin socket.
#pragma once

#include "base/line_socket.h"
#include "proto/admin.h"

namespace hydrant::fetch {

// What the request's success carries, or the error that hydrantd reports; progress lines are passed over.
Result<proto::Json> admin_call(LineSocket& socket, const proto::HydrantdRequest& request, Deadline deadline);

}  // namespace hydrant::fetch
