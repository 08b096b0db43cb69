// One connection to a daemon's admin socket.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/line_socket.h"
#include "proto/admin.h"

namespace hydrant::cli {

// Limits of one call. Whichever passes first ends it with kTooSlow.
struct Patience {
  Deadline total = Deadline(Instant::max());
  Duration silence = std::chrono::seconds(2);  // without a line from the daemon
};

// Destroying it in the middle of a call cancels the call.
class AdminClient {
 public:
  using OnProgress = std::function<void(const proto::Progress&)>;

  // `name` is the daemon's, for messages. kNotFound or kUnreachable when none runs.
  static Result<AdminClient> connect(const std::string& path, std::string name, Deadline deadline);

  // The daemon's own errors come back as they are. `Request` is a HydrantdRequest or a FetchdRequest.
  template <class Reply, class Request>
  Result<Reply> call(const Request& request, const Patience& patience = {}, const OnProgress& on_progress = {}) {
    HYDRANT_TRY(proto::Json answer, call_line(proto::encode(request), patience, on_progress));
    return proto::decode_reply<Reply>(answer).map_error([&](Error error) { return std::move(error).in(name_); });
  }

 private:
  AdminClient(LineSocket socket, std::string name) : socket_(std::move(socket)), name_(std::move(name)) {}
  Result<proto::Json> call_line(const std::string& line, const Patience& patience, const OnProgress& on_progress);

  LineSocket socket_;
  std::string name_;
};

}  // namespace hydrant::cli
