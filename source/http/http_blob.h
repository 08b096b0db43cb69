// A blob behind a URL that serves ranges.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/guarded.h"
#include "source/http/http_client.h"
#include "source/source.h"

namespace hydrant::source {

// Thread-safe. A read survives broken transfers: it goes on at the byte it has reached, until its deadline passes or
// nothing came in HttpOptions::attempts tries in a row.
class HttpBlob final : public Blob {
 public:
  struct Target {
    std::string url;
    std::shared_ptr<Authorizer> authorizer;             // may be null; the other holder is the store that made the blob
    std::string name;                                   // for messages; empty: the URL without secrets
    std::shared_ptr<const HostOptions> host = nullptr;  // null: nothing special
    bool netrc = false;
    unsigned attempts = 0;  // in a row without progress; 0: the client's
  };

  // Asks the server for size and validators (one ranged GET of a byte). kNotFound, kUnauthorized, kDenied,
  // kUnreachable name the URL; kUnsupported when the server does not tell the size.
  static Result<std::shared_ptr<HttpBlob>> open(std::shared_ptr<HttpClient> client, Target target, Deadline deadline);

  // The caller knows the size, and that the URL names its content (a digest): asks nobody. A server that knows another
  // size fails reads with kCorrupt.
  static std::shared_ptr<HttpBlob> immutable(std::shared_ptr<HttpClient> client, Target target, uint64_t size);

  uint64_t size() const override { return size_; }
  // kGone when the object has changed since open(), or the server no longer tells which version its bytes are of;
  // kUnsupported when the server has no ranges (a range from 0 on is served all the same); kCorrupt when it answers
  // other bytes than asked for.
  Result<> read(const ReadRequest& request, const Sink& sink) override;
  // The strong ETag, else Last-Modified (whose second is the best that such a server can tell).
  BlobVersion version() const override;
  std::string describe() const override { return target_.name; }

 private:
  struct Progress;
  HttpBlob(std::shared_ptr<HttpClient> client, Target target, uint64_t size, bool immutable);
  Result<> attempt(Progress& progress);
  Result<> conclude(Progress& progress, Result<HttpHead>& head,
                    const std::function<Result<>(const HttpHead&)>& check) const;
  Result<> check_same(const HttpHead& head) const;
  Result<> check_range(const HttpHead& head, const ByteRange& asked) const;

  const std::shared_ptr<HttpClient> client_;  // shared by all blobs of the daemon
  const Target target_;
  uint64_t size_;
  const bool immutable_;
  // Set by open() before anybody else sees the blob.
  std::string etag_, last_modified_;
  bool ranges_ = true;
  Guarded<std::string> redirected_url_;  // where the last redirect led; empty: not known, or it failed
};

}  // namespace hydrant::source
