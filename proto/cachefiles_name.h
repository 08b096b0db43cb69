// How keys become names on disk: the hash that picks a fan-out directory and the encoding of object names (spec 9).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace hydrant::proto {

// `key` is at most 255 bytes.
uint32_t hash_volume(std::string_view key);
uint32_t hash_cookie(uint32_t volume_hash, Bytes key);

// "I<key>". The key holds no '/'.
std::string volume_directory(std::string_view key);
// "@<xx>": the low byte of the cookie's hash.
std::string fanout_directory(uint8_t index);

// The file name of a key. Nothing when the key is empty or longer than 252 bytes, or the name would be longer than 255:
// the kernel cuts or asserts there.
std::optional<std::string> object_name(Bytes key);

}  // namespace hydrant::proto
