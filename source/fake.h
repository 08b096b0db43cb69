// Sources that misbehave on demand, for the tests of everything that reads one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "source/source.h"

namespace hydrant::source {

// What one read of a FakeBlob does instead of being honest.
struct FakeAnswer {
  enum class Kind {
    kHonest,
    kFail,      // `error`, after `after` right bytes
    kStall,     // after `after` right bytes nothing comes until stop or deadline
    kTruncate,  // claims success after `after` bytes
    kRepeat,    // delivers every piece twice, so twice the bytes
    kZeroFill,  // zeros from byte `after` on, of the right length
    kFlipBit,   // one wrong bit at byte `after` of the range
  };
  Kind kind = Kind::kHonest;
  uint64_t after = 0;
  Error error{};                       // of kFail
  std::chrono::milliseconds delay{0};  // before the first byte; ends early at stop or deadline, as the read then does
};

// Thread-safe.
class FakeBlob final : public Blob {
 public:
  explicit FakeBlob(Buffer content, std::string name = "fake");

  // The next reads take these, first come first served; without any left reads are honest.
  void answer(FakeAnswer next, unsigned times = 1);
  // From now on size() says so; reads past the content deliver zeros.
  void lie_about_size(uint64_t size);
  // Reads wait here until release(), stop or deadline.
  void hold();
  void release();

  // For tests that wait: true once `reads` reads have begun.
  bool wait_for_reads(size_t reads, Deadline deadline) const;
  std::vector<ByteRange> reads() const;  // begun so far, in order

  uint64_t size() const override;
  Result<> read(const ReadRequest& request, const Sink& sink) override;
  std::string describe() const override { return name_; }

 private:
  const Buffer content_;
  const std::string name_;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  std::deque<FakeAnswer> answers_;
  std::vector<ByteRange> reads_;
  uint64_t size_;
  bool held_ = false;
};

// Keeps what it was given. Thread-safe.
class FakeStore final : public ImageStore {
 public:
  std::shared_ptr<FakeBlob> add_blob(Buffer content);  // found under its true digest
  // Found under `tag` and under its digest.
  Digest add_manifest(const std::string& tag, std::string media_type, std::string body);
  // manifest() and blob() fail with it from now on; Code::kOk ends that.
  void fail_with(Error error);

  Result<StoredManifest> manifest(const std::string& reference, Deadline deadline) override;
  Result<std::shared_ptr<Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) override;
  std::string describe() const override { return "fake store"; }
  Result<std::vector<proto::Descriptor>> referrers(const Digest& subject, std::string_view artifact_type,
                                                   Deadline deadline) override;
  Result<> put_blob(const Digest& digest, Blob& content, Deadline deadline) override;
  Result<> put_manifest(const std::string& reference, const std::string& media_type, std::string body,
                        Deadline deadline) override;
  Result<> put_referrer(const Digest& subject, const proto::Descriptor& self, std::string body,
                        Deadline deadline) override;

 private:
  std::mutex mutex_;
  std::map<Digest, std::shared_ptr<FakeBlob>> blobs_;  // also held by the readers and by the test
  std::map<std::string, StoredManifest> manifests_;
  std::multimap<Digest, proto::Descriptor> referrers_;
  Error failure_{.code = Code::kOk, .what = {}};
};

}  // namespace hydrant::source
