// For tests: key pairs made on the spot.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <string>

namespace hydrant::fixture {

struct KeyPair {
  std::string secret, open;
};

inline std::string drain(BIO* memory) {
  std::string text(static_cast<size_t>(BIO_pending(memory)), '\0');
  BIO_read(memory, text.data(), static_cast<int>(text.size()));
  return text;
}

inline KeyPair new_key(const char* type = "ED25519", const char* curve = nullptr) {
  EVP_PKEY* key = curve ? EVP_PKEY_Q_keygen(nullptr, nullptr, type, curve) : EVP_PKEY_Q_keygen(nullptr, nullptr, type);
  KeyPair pair;
  BIO* memory = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(memory, key, nullptr, nullptr, 0, nullptr, nullptr);
  pair.secret = drain(memory);
  PEM_write_bio_PUBKEY(memory, key);
  pair.open = drain(memory);
  BIO_free(memory);
  EVP_PKEY_free(key);
  return pair;
}

}  // namespace hydrant::fixture
