#include "source/fake.h"

#include <algorithm>

namespace hydrant::source {

FakeBlob::FakeBlob(Buffer content, std::string name)
    : content_(std::move(content)), name_(std::move(name)), size_(content_.size()) {}

void FakeBlob::answer(FakeAnswer next, unsigned times) {
  std::lock_guard lock(mutex_);
  answers_.insert(answers_.end(), times, std::move(next));
}

void FakeBlob::lie_about_size(uint64_t size) {
  std::lock_guard lock(mutex_);
  size_ = size;
}

void FakeBlob::hold() {
  std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeBlob::release() {
  std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

bool FakeBlob::wait_for_reads(size_t reads, Deadline deadline) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.at(), [&] { return reads_.size() >= reads; });
}

std::vector<ByteRange> FakeBlob::reads() const {
  std::lock_guard lock(mutex_);
  return reads_;
}

uint64_t FakeBlob::size() const {
  std::lock_guard lock(mutex_);
  return size_;
}

Result<> FakeBlob::read(const ReadRequest& request, const Sink& sink) {
  using Kind = FakeAnswer::Kind;
  constexpr size_t kPiece = 64 << 10;
  FakeAnswer answer;
  std::unique_lock lock(mutex_);
  reads_.push_back(request.range);
  if (!answers_.empty()) {
    answer = std::move(answers_.front());
    answers_.pop_front();
  }
  changed_.notify_all();
  // Sleeps until `ready`, or says why nobody waits any longer.
  auto wait = [&](Instant until, auto ready) -> Result<> {
    changed_.wait_until(lock, request.stop, std::min(until, request.deadline.at()), ready);
    if (request.stop.stop_requested()) return fail(Code::kCancelled, name_ + ": cancelled");
    if (request.deadline.passed()) return fail(Code::kTooSlow, name_ + ": no answer by the deadline");
    return {};
  };
  if (held_) HYDRANT_TRY_VOID(wait(request.deadline.at(), [&] { return !held_; }));
  if (answer.delay.count()) HYDRANT_TRY_VOID(wait(Clock::system().now() + answer.delay, [] { return false; }));
  lock.unlock();

  const uint64_t size = request.range.size();
  const bool cuts = answer.kind == Kind::kFail || answer.kind == Kind::kStall || answer.kind == Kind::kTruncate;
  const uint64_t end = cuts ? std::min(answer.after, size) : size;
  for (uint64_t at = 0; at < end;) {
    Buffer piece(std::min<uint64_t>(kPiece, end - at));
    for (size_t i = 0; i < piece.size(); ++i) {
      uint64_t from = request.range.begin + at + i;
      bool zero = (answer.kind == Kind::kZeroFill && at + i >= answer.after) || from >= content_.size();
      piece[i] = zero ? std::byte(0) : content_[from];
      if (answer.kind == Kind::kFlipBit && at + i == answer.after) piece[i] ^= std::byte(1);
    }
    for (int times = answer.kind == Kind::kRepeat ? 2 : 1; times > 0; --times) HYDRANT_TRY_VOID(sink(piece));
    at += piece.size();
  }
  if (answer.kind == Kind::kFail) return fail(std::move(answer.error));
  if (answer.kind == Kind::kStall) {
    lock.lock();
    return wait(request.deadline.at(), [] { return false; });
  }
  return {};
}

std::shared_ptr<FakeBlob> FakeStore::add_blob(Buffer content) {
  auto digest = sha256(content);
  auto blob = std::make_shared<FakeBlob>(std::move(content), "fake blob " + digest.text());
  std::lock_guard lock(mutex_);
  blobs_[digest] = blob;
  return blob;
}

Digest FakeStore::add_manifest(const std::string& tag, std::string media_type, std::string body) {
  auto digest = sha256(as_bytes(body));
  StoredManifest manifest{std::move(media_type), std::move(body), digest};
  std::lock_guard lock(mutex_);
  manifests_[tag] = manifest;
  manifests_[digest.text()] = std::move(manifest);
  return digest;
}

void FakeStore::fail_with(Error error) {
  std::lock_guard lock(mutex_);
  failure_ = std::move(error);
}

Result<StoredManifest> FakeStore::manifest(const std::string& reference, Deadline) {
  std::lock_guard lock(mutex_);
  if (failure_.code != Code::kOk) return fail(failure_);
  auto found = manifests_.find(reference);
  if (found == manifests_.end()) return fail(Code::kNotFound, "fake store: no image '" + reference + "'");
  return found->second;
}

Result<std::shared_ptr<Blob>> FakeStore::blob(const Digest& digest, uint64_t size, Deadline) {
  std::lock_guard lock(mutex_);
  if (failure_.code != Code::kOk) return fail(failure_);
  auto found = blobs_.find(digest);
  if (found == blobs_.end()) return fail(Code::kNotFound, "fake store: no blob " + digest.text());
  if (found->second->size() != size) return fail(Code::kCorrupt, "fake store: size of " + digest.text() + " differs");
  return std::shared_ptr<Blob>(found->second);
}

Result<std::vector<proto::Descriptor>> FakeStore::referrers(const Digest& subject, std::string_view artifact_type,
                                                            Deadline) {
  std::lock_guard lock(mutex_);
  if (failure_.code != Code::kOk) return fail(failure_);
  std::vector<proto::Descriptor> found;
  for (auto [entry, end] = referrers_.equal_range(subject); entry != end; ++entry)
    if (entry->second.artifact_type == artifact_type) found.push_back(entry->second);
  return found;
}

Result<> FakeStore::put_blob(const Digest& digest, Blob& content, Deadline deadline) {
  HYDRANT_TRY(auto bytes, read_all(content, {{0, content.size()}, deadline, {}}));
  if (sha256(bytes) != digest) return fail(Code::kCorrupt, "fake store: not the blob's digest");
  add_blob(std::move(bytes));
  return {};
}

Result<> FakeStore::put_manifest(const std::string& reference, const std::string& media_type, std::string body,
                                 Deadline) {
  add_manifest(reference, media_type, std::move(body));
  return {};
}

Result<> FakeStore::put_referrer(const Digest& subject, const proto::Descriptor& self, std::string body, Deadline) {
  add_manifest(self.digest.text(), self.media_type, std::move(body));
  std::lock_guard lock(mutex_);
  referrers_.emplace(subject, self);
  return {};
}

}  // namespace hydrant::source
