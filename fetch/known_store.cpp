#include "fetch/known_store.h"

#include "base/log.h"
#include "proto/oci.h"

namespace hydrant::fetch {

namespace {

class MemoryBlob final : public source::Blob {
 public:
  MemoryBlob(std::string body, std::string name) : body_(std::move(body)), name_(std::move(name)) {}
  uint64_t size() const override { return body_.size(); }
  Result<> read(const source::ReadRequest& request, const source::Sink& sink) override {
    if (request.range.end > body_.size()) return fail(Code::kInvalid, name_ + ": read past the end");
    return sink(as_bytes(body_).subspan(request.range.begin, request.range.size()));
  }
  std::string describe() const override { return name_; }

 private:
  const std::string body_;
  const std::string name_;
};

}  // namespace

// From the catalogue, proven again: the file may have rotted.
Result<source::StoredManifest> KnownStore::known(const Digest& digest) {
  HYDRANT_TRY(auto document, catalogue_.document(digest));
  if (sha256(as_bytes(document.body)) != digest)
    return fail(Code::kCorrupt, "catalogue: document " + digest.text() + " has changed");
  return source::StoredManifest{std::move(document.media_type), std::move(document.body), digest};
}

// A catalogue that cannot keep it costs a question to the store the next time.
void KnownStore::remember(const Digest& digest, const std::string& media_type, const std::string& body) {
  if (auto put = catalogue_.put_document(digest, media_type, body); !put)
    log::warn("catalogue.document", {{"reason", put.error().what}});
}

Result<source::StoredManifest> KnownStore::manifest(const std::string& reference, Deadline deadline) {
  if (reference.starts_with("sha256:")) {
    HYDRANT_TRY(auto digest, Digest::parse(reference));
    if (auto document = known(digest)) return document;
    HYDRANT_TRY(auto got, store_->manifest(reference, deadline));
    remember(digest, got.media_type, got.body);
    return got;
  }

  auto last = catalogue_.tag(name_, reference);
  auto stand_in = last ? known(*last) : Result<source::StoredManifest>(fail(Code::kNotFound, ""));
  auto got = store_->manifest(reference, stand_in ? deadline.sooner(Deadline::after(kPatience)) : deadline);
  if (got) {
    remember(got->digest, got->media_type, got->body);
    if (auto put = catalogue_.put_tag(name_, reference, got->digest); !put)
      log::warn("catalogue.tag", {{"reason", put.error().what}});
    return got;
  }
  // A store that is overloaded or broken for now (429, 5xx) answers no more than one that is away.
  const Error& error = got.error();
  bool away = error.retry || error.code == Code::kUnreachable || error.code == Code::kTooSlow;
  if (!stand_in || !away) return got;
  std::lock_guard lock(mutex_);
  warning_ = store_->describe() + " cannot be reached (" + got.error().what + "): using what " +
             (reference.empty() ? std::string("it held") : "\"" + reference + "\" was") + " when it was last resolved";
  return stand_in;
}

Result<std::shared_ptr<source::Blob>> KnownStore::blob(const Digest& digest, uint64_t size, Deadline deadline) {
  if (size > proto::kMaxDocument)
    return fail(Code::kCorrupt, store_->describe() + ": document " + digest.text() + " is larger than 4 MiB");
  if (auto document = known(digest)) return std::make_shared<MemoryBlob>(std::move(document->body), digest.text());
  HYDRANT_TRY(Buffer bytes, source::read_proven(*store_, digest, size, deadline));
  std::string body(as_text(bytes));
  remember(digest, "", body);
  return std::make_shared<MemoryBlob>(std::move(body), digest.text());
}

}  // namespace hydrant::fetch
