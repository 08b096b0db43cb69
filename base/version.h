// The version every program of ours reports. The same as in the top CMakeLists.txt; a test of the CLI compares them.
#pragma once

#include <string_view>

namespace hydrant {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace hydrant
