// The contract of a place bytes come from. Implement `Blob` (and `ImageStore` when the place keeps images) to add one;
// source/file is the smallest example, `FakeBlob` in source/fake.h the one that misbehaves on demand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "proto/oci.h"

namespace hydrant::source {

struct ReadRequest {
  ByteRange range;       // inside [0, Blob::size())
  Deadline deadline;     // the read has failed with kTooSlow when it passes
  std::stop_token stop;  // nobody waits any more: fail with kCancelled soon
};

// Takes consecutive pieces in order. An error ends the read and becomes its result. Called in the reader's thread. An
// empty piece says that the place has nothing more to give for the moment: what was kept back to be handed on in larger
// portions should not wait for the next byte.
using Sink = std::function<Result<>(Bytes)>;

// What tells one content of an object from the next where its name does not (a digest does).
struct BlobVersion {
  std::string validator;  // another one whenever the content is another; empty: the place has none
  int64_t modified = 0;   // seconds since 1970; 0: not known
  bool ranges = true;     // can be read in the middle
};

// One remote object that does not change under its readers: a source that notices a change fails with kGone.
// Thread-safe: many reads of one blob run at a time, each blocking its own thread.
class Blob {
 public:
  virtual ~Blob() = default;
  virtual uint64_t size() const = 0;
  // Delivers exactly request.range, or an error; what the sink got before an error must be thrown away by its owner.
  virtual Result<> read(const ReadRequest& request, const Sink& sink) = 0;
  // As the place told when the blob was opened; asks nobody.
  virtual BlobVersion version() const { return {}; }
  // For logs and messages: an origin without credentials, "registry.example/app@sha256:…".
  virtual std::string describe() const = 0;
};

// Bytes in memory.
class BytesBlob final : public Blob {
 public:
  BytesBlob(std::string bytes, std::string name) : bytes_(std::move(bytes)), name_(std::move(name)) {}
  uint64_t size() const override { return bytes_.size(); }
  Result<> read(const ReadRequest& request, const Sink& sink) override {
    return sink(as_bytes(bytes_).subspan(request.range.begin, request.range.size()));
  }
  std::string describe() const override { return name_; }

 private:
  const std::string bytes_;
  const std::string name_;
};

// read() into memory.
Result<Buffer> read_all(Blob& blob, const ReadRequest& request);

struct StoredManifest {
  std::string media_type;  // as the store said; may be empty
  std::string body;        // at most 4 MiB; its digest was checked when it was asked for by digest
  Digest digest;           // SHA-256 of body
};

// A place that keeps images: manifests by tag or digest, blobs by digest. Thread-safe.
class ImageStore {
 public:
  virtual ~ImageStore() = default;
  // `reference`: a tag, or "sha256:…". kNotFound names the image.
  virtual Result<StoredManifest> manifest(const std::string& reference, Deadline deadline) = 0;
  // `size` is what the manifest says; a store that knows better and differs fails with kCorrupt.
  virtual Result<std::shared_ptr<Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) = 0;
  virtual std::string describe() const = 0;  // "registry:5000/app", "oci:/srv/image"

  // What stands beside an image: manifests of that artifact type whose subject is `subject`, as the store lists them.
  // Anybody who may push can add one. Empty when there are none, or the store knows no such thing.
  virtual Result<std::vector<proto::Descriptor>> referrers(const Digest& subject, std::string_view artifact_type,
                                                           Deadline deadline);

  // Publishing; kUnsupported where the store takes nothing. A manifest's blobs go first. `content`, which has that
  // digest, is read while it is sent.
  virtual Result<> put_blob(const Digest& digest, Blob& content, Deadline deadline);
  virtual Result<> put_manifest(const std::string& reference, const std::string& media_type, std::string body,
                                Deadline deadline);
  // A manifest with a subject, listed as one of its referrers even where the store keeps no such list.
  virtual Result<> put_referrer(const Digest& subject, const proto::Descriptor& self, std::string body,
                                Deadline deadline);
};

// A blob of `store`, whole, once its bytes match the digest; else kCorrupt.
Result<Buffer> read_proven(ImageStore& store, const Digest& digest, uint64_t size, Deadline deadline,
                           std::stop_token stop = {});

}  // namespace hydrant::source
