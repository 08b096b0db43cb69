#include "source/source.h"

namespace hydrant::source {

Result<Buffer> read_all(Blob& blob, const ReadRequest& request) {
  Buffer out;
  out.reserve(request.range.size());
  HYDRANT_TRY_VOID(blob.read(request, [&](Bytes piece) -> Result<> {
    if (piece.size() > request.range.size() - out.size())
      return fail(Code::kCorrupt, blob.describe() + ": delivers more than was asked for");
    append(out, piece);
    return {};
  }));
  if (out.size() != request.range.size())
    return fail(Code::kCorrupt, blob.describe() + ": delivers less than was asked for");
  return out;
}

Result<std::vector<proto::Descriptor>> ImageStore::referrers(const Digest&, std::string_view, Deadline) {
  return std::vector<proto::Descriptor>();
}

namespace {

tl::unexpected<Error> read_only(const ImageStore& store) {
  return fail(Code::kUnsupported, store.describe() + " is read only: indexes are pushed to registries");
}

}  // namespace

Result<> ImageStore::put_blob(const Digest&, Blob&, Deadline) { return read_only(*this); }

Result<> ImageStore::put_manifest(const std::string&, const std::string&, std::string, Deadline) {
  return read_only(*this);
}

Result<> ImageStore::put_referrer(const Digest&, const proto::Descriptor&, std::string, Deadline) {
  return read_only(*this);
}

Result<Buffer> read_proven(ImageStore& store, const Digest& digest, uint64_t size, Deadline deadline,
                           std::stop_token stop) {
  HYDRANT_TRY(auto blob, store.blob(digest, size, deadline));
  HYDRANT_TRY(Buffer bytes, read_all(*blob, {{0, size}, deadline, stop}));
  if (sha256(bytes) != digest) return fail(Code::kCorrupt, blob->describe() + ": bytes do not match the digest");
  return bytes;
}

}  // namespace hydrant::source
