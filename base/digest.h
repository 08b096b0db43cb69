// SHA-256 digests and their OCI text form "sha256:<64 hex>".
#pragma once

#include <array>
#include <compare>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant {

struct Digest {
  std::array<std::byte, 32> bytes{};

  std::string hex() const;  // 64 lower-case characters
  std::string text() const { return "sha256:" + hex(); }
  bool is_zero() const { return bytes == std::array<std::byte, 32>{}; }
  auto operator<=>(const Digest&) const = default;

  // Accepts "sha256:<hex>" and bare hex; other algorithms are kUnsupported, anything else kInvalid.
  static Result<Digest> parse(std::string_view text);
};

// Incremental SHA-256 (OpenSSL EVP). `finish` may be called once; `reset` makes it usable again. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(Bytes bytes);
  Digest finish();
  void reset();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

Digest sha256(Bytes bytes);

std::string to_hex(Bytes bytes);

}  // namespace hydrant

template <>
struct std::hash<hydrant::Digest> {
  size_t operator()(const hydrant::Digest& digest) const noexcept {
    return hydrant::load_le<size_t>(digest.bytes.data());
  }
};
