#include "base/check.h"
#include "proto/cachefiles_name.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes key{reinterpret_cast<const std::byte*>(data), std::min<size_t>(size, 255)};
  proto::hash_cookie(proto::hash_volume(as_text(key)), key);
  auto name = proto::object_name(key);
  if (!name) return 0;
  HYDRANT_CHECK(!name->empty() && name->size() <= 255, "a name is a file name");
  HYDRANT_CHECK(name->find('/') == std::string::npos && name->find('\0') == std::string::npos,
                "a name stays in its directory");
  return 0;
}
