#include "base/check.h"
#include "proto/elf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto head = hydrant::proto::read_program_head(std::as_bytes(std::span(data, size)));
  HYDRANT_CHECK(head.interpreter.size() <= size, "an interpreter stands in the file");
  return 0;
}
