// How far an index that somebody pushed beside an image is believed (docs/trust.md).
#pragma once

#include <string>

#include "base/error.h"

namespace hydrant::fetch {

enum class Trust {
  kStrict,  // only what the image's manifest names, or a key of this node's has signed
  kLate,    // any: the layers are read whole in the background, and a lie is found then
  kOff,     // any, unproven; for tests
};

// "strict", "late", "off"; an empty text is strict. kInvalid for others.
inline Result<Trust> parse_trust(const std::string& text) {
  if (text.empty() || text == "strict") return Trust::kStrict;
  if (text == "late") return Trust::kLate;
  if (text == "off") return Trust::kOff;
  return fail(Code::kInvalid, "trust \"" + text + "\" is none of strict, late and off");
}

}  // namespace hydrant::fetch
