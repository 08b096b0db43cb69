// What a program file tells of how it will be started: enough to know whether a preload library reaches it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace hydrant::proto {

// How the start of a file (its first kProgramHead bytes, or all of a shorter one) says that it is to be run.
struct ProgramHead {
  enum class Form {
    kOther,    // the kernel would not run it
    kScript,   // `interpreter` runs it
    kStatic,   // no loader: it makes its system calls itself
    kGo,       // dynamically linked, but its system calls are Go's own
    kForeign,  // of another machine or word size
    kDynamic,  // `interpreter` is its loader
  };
  Form form = Form::kOther;
  std::string interpreter = {};
};
inline constexpr size_t kProgramHead = 64 << 10;
ProgramHead read_program_head(Bytes head);

}  // namespace hydrant::proto
