// Signatures with a key pair of the user's: Ed25519, ECDSA or RSA in PEM, as `openssl genpkey` writes them.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant {

// In hex. kInvalid: no private key, or one that needs a password or cannot sign.
Result<std::string> sign(const std::string& private_key_pem, std::string_view text);

// kDenied when `signature` is none of that key over `text`; kInvalid when there is no public key.
Result<> verify(const std::string& public_key_pem, std::string_view text, std::string_view signature);

}  // namespace hydrant
