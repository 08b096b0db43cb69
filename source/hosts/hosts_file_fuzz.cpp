#include "base/bytes.h"
#include "source/hosts/hosts_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)hydrant::source::parse_hosts_file({reinterpret_cast<const char*>(data), size});
  return 0;
}
