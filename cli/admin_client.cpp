#include "cli/admin_client.h"

namespace hydrant::cli {

Result<AdminClient> AdminClient::connect(const std::string& path, std::string name, Deadline deadline) {
  HYDRANT_TRY(LineSocket socket, LineSocket::connect(path, deadline));
  return AdminClient(std::move(socket), std::move(name));
}

Result<proto::Json> AdminClient::call_line(const std::string& line, const Patience& patience,
                                           const OnProgress& on_progress) {
  auto in_place = [&](Error error) {
    if (error.code == Code::kTooSlow) error.what = "did not answer in time; its log is in run/ under the root";
    if (error.code == Code::kGone) error.what = "went away in the middle; its log is in run/ under the root";
    return std::move(error).in(name_);
  };
  auto next_deadline = [&] { return Deadline::after(patience.silence).sooner(patience.total); };
  HYDRANT_TRY_VOID(socket_.send(line, next_deadline()).map_error(in_place));
  for (;;) {
    HYDRANT_TRY(std::string text, socket_.receive(next_deadline()).map_error(in_place));
    HYDRANT_TRY(proto::Answer answer, proto::decode_answer(text).map_error(in_place));
    if (auto* progress = std::get_if<proto::Progress>(&answer)) {
      if (on_progress) on_progress(*progress);
    } else if (auto* error = std::get_if<Error>(&answer)) {
      return fail(std::move(*error));
    } else {
      return std::get<proto::Json>(std::move(answer));
    }
  }
}

}  // namespace hydrant::cli
