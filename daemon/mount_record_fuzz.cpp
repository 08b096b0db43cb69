#include "daemon/mount_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto record = hydrant::daemon::decode_mount_record({reinterpret_cast<const char*>(data), size});
  if (record) (void)hydrant::daemon::encode(*record);
  return 0;
}
