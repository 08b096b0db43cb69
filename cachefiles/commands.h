// The text of control commands (spec 2.3, 3.2, 3.6): splitting, and numbers as the kernel reads them.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace hydrant::cachefiles {

struct Command {
  std::string_view word;
  std::string_view arguments;  // leading white space skipped, trailing kept
};

// Steps 2 to 8 of spec 2.3. 0 or -errno.
int split_command(Bytes text, Command* out);

// Base 0 rules (0x…, 0…, decimal), an optional '+', nothing else. 0, -EINVAL or -ERANGE.
int parse_unsigned(std::string_view text, uint64_t* out);
// The same with an optional sign.
int parse_signed(std::string_view text, int64_t* out);
// Decimal digits (none count as zero), then '%'. -EINVAL for anything else and for 100 and above.
int parse_percentage(std::string_view text, uint64_t* out);
// What `debug` takes: a number that may be empty, nothing after it.
int parse_mask(std::string_view text, unsigned* out);

}  // namespace hydrant::cachefiles
