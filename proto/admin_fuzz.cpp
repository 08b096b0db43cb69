// Any line from outside decodes to a message or to an error; what decodes encodes again.
#include "proto/admin.h"

using namespace hydrant;
using namespace hydrant::proto;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view line(reinterpret_cast<const char*>(data), size);
  if (auto request = decode_hydrantd_request(line)) (void)encode(*request);
  if (auto request = decode_fetchd_request(line)) (void)encode(*request);
  if (auto answer = decode_answer(line)) {
    if (auto* json = std::get_if<Json>(&*answer)) {
      (void)decode_reply<MountReply>(*json);
      (void)decode_reply<ListReply>(*json);
      (void)decode_reply<StatMountReply>(*json);
      (void)decode_reply<PrepareReply>(*json);
      (void)decode_reply<StatusReply>(*json);
      (void)decode_reply<EngineReply>(*json);
    }
  }
  (void)parse_image_facts(line);
  return 0;
}
