#include <algorithm>

#include "base/check.h"
#include "proto/device.h"

using namespace hydrant;
namespace dev = hydrant::proto::device;

// Whatever decodes encodes to the same bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes message = std::as_bytes(std::span(data, size));
  auto same = [&](Bytes again) {
    HYDRANT_CHECK(std::ranges::equal(again, message), "what decodes must encode to itself");
  };
  if (auto name = dev::decode_name(as_text(message))) {
    auto text = dev::encode_name(*name);
    same(as_bytes(std::string_view(text.data(), text.size())));
  }
  auto frame = proto::channel::decode_frame(message);
  if (!frame) return 0;
  uint64_t tag = frame->header.tag;
  if (auto open = dev::decode_open(*frame)) same(dev::encode_open(tag, *open).bytes());
  if (auto read = dev::decode_read(*frame)) same(dev::encode_read(tag, *read).bytes());
  if (auto write = dev::decode_write_memory(*frame)) same(dev::encode_write_memory(tag, *write).bytes());
  if (dev::decode_bare(*frame)) same(dev::encode_bare(frame->header.op, tag).bytes());
  return 0;
}
