#include "source/auth/base64.h"

#include <openssl/evp.h>

namespace hydrant::source {

std::string base64_encode(std::string_view text) {
  std::string out((text.size() + 2) / 3 * 4 + 1, '\0');  // OpenSSL ends it with a zero
  int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                             reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  out.resize(static_cast<size_t>(size));
  return out;
}

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 || text.size() > (1 << 20)) return std::nullopt;
  size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string out(text.size() / 4 * 3, '\0');
  int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                             reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  // OpenSSL skips blanks around the text and counts padding as data.
  if (size < 0 || static_cast<size_t>(size) != out.size()) return std::nullopt;
  out.resize(out.size() - padding);
  return out;
}

}  // namespace hydrant::source
