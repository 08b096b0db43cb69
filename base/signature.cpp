#include "base/signature.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <memory>
#include <vector>

#include "base/digest.h"
#include "base/free_with.h"
#include "base/hex.h"

namespace hydrant {

namespace {

using Memory = std::unique_ptr<BIO, FreeWith<BIO_free>>;
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Context = std::unique_ptr<EVP_MD_CTX, FreeWith<EVP_MD_CTX_free>>;

// Nobody is there to type one.
int no_password(char*, int, int, void*) { return -1; }

Memory memory_of(const std::string& pem) { return Memory(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

// Ed25519 and Ed448 hash by themselves.
const EVP_MD* hash_of(const Key& key) {
  const int id = EVP_PKEY_get_base_id(key.get());
  return id == EVP_PKEY_ED25519 || id == EVP_PKEY_ED448 ? nullptr : EVP_sha256();
}

const unsigned char* raw(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

Result<std::string> sign(const std::string& private_key_pem, std::string_view text) {
  const Key key(PEM_read_bio_PrivateKey(memory_of(private_key_pem).get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (!key) return fail(Code::kInvalid, "no private key in PEM without a password; openssl genpkey makes one");
  const Context context(EVP_MD_CTX_new());
  size_t size = 0;
  std::vector<unsigned char> out;
  bool done = context && EVP_DigestSignInit(context.get(), nullptr, hash_of(key), nullptr, key.get()) == 1 &&
              EVP_DigestSign(context.get(), nullptr, &size, raw(text), text.size()) == 1;
  if (done) {
    out.resize(size);
    done = EVP_DigestSign(context.get(), out.data(), &size, raw(text), text.size()) == 1;
  }
  ERR_clear_error();
  if (!done) return fail(Code::kInvalid, "a key of this kind cannot sign; take Ed25519, ECDSA or RSA");
  return to_hex(std::as_bytes(std::span(out.data(), size)));
}

Result<> verify(const std::string& public_key_pem, std::string_view text, std::string_view signature) {
  const Key key(PEM_read_bio_PUBKEY(memory_of(public_key_pem).get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (!key) return fail(Code::kInvalid, "no public key in PEM; openssl pkey -pubout makes one");
  const Buffer bytes = from_hex(signature).value_or(Buffer());
  const Context context(EVP_MD_CTX_new());
  const bool good = context && EVP_DigestVerifyInit(context.get(), nullptr, hash_of(key), nullptr, key.get()) == 1 &&
                    EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
                                     raw(text), text.size()) == 1;
  ERR_clear_error();
  if (!good) return fail(Code::kDenied, "the signature is none of this key");
  return {};
}

}  // namespace hydrant
