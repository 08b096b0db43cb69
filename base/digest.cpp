#include "base/digest.h"

#include <openssl/evp.h>

#include <algorithm>

#include "base/check.h"
#include "base/hex.h"

namespace hydrant {

namespace {

EVP_MD_CTX* ctx(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

std::string to_hex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (std::byte b : bytes) {
    out += kDigits[std::to_integer<unsigned>(b) >> 4];
    out += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return out;
}

std::string Digest::hex() const { return to_hex(bytes); }

Result<Digest> Digest::parse(std::string_view text) {
  std::string_view hex = text;
  if (auto colon = text.find(':'); colon != text.npos) {
    if (text.substr(0, colon) != "sha256")
      return fail(Code::kUnsupported, "digest algorithm of '" + std::string(text) + "'; only sha256 is supported");
    hex = text.substr(colon + 1);
  }
  Digest digest;
  if (hex.size() != 64) return fail(Code::kInvalid, "digest '" + std::string(text) + "' is not 64 hex characters");
  const auto bytes = from_hex(hex);
  if (!bytes) return fail(Code::kInvalid, "digest '" + std::string(text) + "' is not lower-case hex");
  std::copy(bytes->begin(), bytes->end(), digest.bytes.begin());
  return digest;
}

void Sha256::Free::operator()(void* context) const { EVP_MD_CTX_free(ctx(context)); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  HYDRANT_CHECK(context_, "out of memory");
  reset();
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::reset() {
  HYDRANT_CHECK(EVP_DigestInit_ex(ctx(context_.get()), EVP_sha256(), nullptr) == 1, "OpenSSL lacks SHA-256");
}

void Sha256::update(Bytes bytes) {
  HYDRANT_CHECK(EVP_DigestUpdate(ctx(context_.get()), bytes.data(), bytes.size()) == 1, "update after finish");
}

Digest Sha256::finish() {
  Digest digest;
  HYDRANT_CHECK(
      EVP_DigestFinal_ex(ctx(context_.get()), reinterpret_cast<unsigned char*>(digest.bytes.data()), nullptr) == 1,
      "finish called twice");
  return digest;
}

Digest sha256(Bytes bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace hydrant
