#include "base/check.h"
#include "proto/cachefiles_label.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes label{reinterpret_cast<const std::byte*>(data), size};
  Bytes aux = label.subspan(std::min(label.size(), proto::kObjectLabelSize));
  auto verdict = proto::check_object_label(label, 4096, aux);
  proto::check_volume_label(label, aux);
  auto decoded = proto::decode_object_label(label);
  HYDRANT_CHECK(verdict != proto::Coherency::kOk || decoded->object_size == 4096, "only the expected size is coherent");
  return 0;
}
