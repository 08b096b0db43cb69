// Objects of one bucket of S3 or of what speaks its protocol (MinIO, Ceph RGW, Google's interoperability mode).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proto/s3_xml.h"
#include "source/s3/aws_config.h"
#include "source/source.h"

namespace hydrant::source {

class S3Authorizer;

// Thread-safe.
class S3Bucket {
 public:
  struct Options {
    Environment environment = process_environment();
    std::function<int64_t()> wall_clock = {};  // seconds since 1970; empty: the system's
  };
  // Asks nobody but the environment and the profile's files.
  static Result<std::unique_ptr<S3Bucket>> open(std::shared_ptr<HttpClient> client, const std::string& bucket,
                                                Options options);
  static Result<std::unique_ptr<S3Bucket>> open(std::shared_ptr<HttpClient> client, const std::string& bucket) {
    return open(std::move(client), bucket, Options());
  }

  // As HttpBlob::open. The object's ETag is its version.
  Result<std::shared_ptr<Blob>> blob(const std::string& key, Deadline deadline);
  // Every object whose key begins with `prefix`, in the order of their keys' bytes. At most a million, else
  // kUnsupported.
  Result<std::vector<proto::S3Object>> list(const std::string& prefix, Deadline deadline);

 private:
  S3Bucket(std::shared_ptr<HttpClient> client, std::string bucket)
      : client_(std::move(client)), bucket_(std::move(bucket)) {}

  const std::shared_ptr<HttpClient> client_;  // shared with every other source of the daemon
  const std::string bucket_;
  std::string base_;                          // the bucket's URL, without a slash at its end
  std::shared_ptr<S3Authorizer> authorizer_;  // also held by the blobs
};

struct S3Name {
  std::string bucket, key;
};
// Of "s3://bucket/key", the key with its %-escapes decoded. kInvalid says what is wrong.
Result<S3Name> parse_s3_url(const std::string& url);

}  // namespace hydrant::source
