#include "base/boot_id.h"

#include "base/file.h"

namespace hydrant {

Result<std::string> boot_id() {
  HYDRANT_TRY(std::string text, read_file("/proc/sys/kernel/random/boot_id", 64));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace hydrant
