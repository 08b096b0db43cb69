#include "base/check.h"
#include "proto/index_artifact.h"

// What decodes is what encodes, and signs alike; a list of referrers takes one more whatever else is in it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant::proto;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  auto document = decode_manifest(body, "");
  if (document && std::holds_alternative<ImageManifest>(*document)) {
    if (auto artifact = decode_index_artifact(std::get<ImageManifest>(*document))) {
      auto again = decode_manifest(encode(*artifact), "");
      HYDRANT_CHECK(again, "an artifact does not decode again");
      auto same = decode_index_artifact(std::get<ImageManifest>(*again));
      HYDRANT_CHECK(same && signed_text(*same) == signed_text(*artifact), "an artifact changes on its way");
    }
  }
  if (auto converted = with_index(body, hydrant::sha256({}))) {
    auto again = with_index(*converted, hydrant::sha256({}));
    HYDRANT_CHECK(converted->size() > kMaxDocument || (again && *again == *converted), "an index is named once");
  }
  (void)with_manifest(body, hydrant::sha256({}), {}, size);
  Descriptor entry;
  entry.digest = hydrant::sha256({});
  if (auto list = with_referrer(body, entry)) {
    auto twice = with_referrer(*list, entry);
    HYDRANT_CHECK(list->size() > kMaxDocument || (twice && *twice == *list), "an entry is listed twice");
  }
  return 0;
}
