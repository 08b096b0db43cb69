#include "base/check.h"
#include "cachefiles/commands.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  using namespace hydrant::cachefiles;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  Command command;
  if (split_command(input, &command) == 0) {
    HYDRANT_CHECK(command.word.size() + command.arguments.size() <= size, "a command lies inside its text");
    uint64_t value = 0;
    int64_t number = 0;
    unsigned mask = 0;
    parse_unsigned(command.arguments, &value);
    parse_signed(command.arguments, &number);
    HYDRANT_CHECK(parse_percentage(command.arguments, &value) != 0 || value < 100, "a percentage is below 100");
    parse_mask(command.arguments, &mask);
  }
  return 0;
}
