// SOURCE as people type it: an image reference the way docker and podman take it, `oci:DIR[:TAG]`, `http(s)://…`,
// `s3://bucket/key`, `file:///…`. Grammar of image references: the distribution project's, with docker.io as default.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/error.h"

namespace hydrant::proto {

// An image in a registry. Invariant after parse: all parts are valid, and at least one of tag and digest is there.
struct ImageName {
  std::string registry;          // "docker.io", "registry.example:5000", "[::1]:5000"
  std::string repository;        // "library/alpine"
  std::string tag;               // empty when only a digest was given
  std::optional<Digest> digest;  // wins over the tag

  // What is asked of the registry: the digest's text, else the tag.
  std::string reference() const { return digest ? digest->text() : tag; }
  // Where the registry's API is: docker.io answers at registry-1.docker.io.
  std::string api_host() const { return registry == "docker.io" ? "registry-1.docker.io" : registry; }
  std::string text() const;  // "registry.example:5000/app:1@sha256:…"

  // A missing registry is docker.io (with library/ for one-word names), a missing tag is "latest". kInvalid says which
  // part is wrong and how it should look.
  static Result<ImageName> parse(std::string_view text);
};

enum class SourceKind : uint8_t { kRegistry, kOciDir, kHttp, kS3, kFile };

struct SourceReference {
  SourceKind kind = SourceKind::kRegistry;
  ImageName image = {};  // kRegistry
  // kOciDir, kFile. May be relative for kOciDir: whoever knows the working directory makes it absolute.
  std::string path = {};
  std::string tag = {};  // kOciDir; empty: the only image of the directory
  std::string url = {};  // kHttp, kS3: verbatim, may hold credentials or a signature

  // Of an image in a store; else of a single file.
  bool names_image() const { return kind == SourceKind::kRegistry || kind == SourceKind::kOciDir; }
  // What an image store is asked for: tag or digest; empty for the only image of an OCI directory.
  std::string image_reference() const { return kind == SourceKind::kOciDir ? tag : image.reference(); }
  // Canonical: parse(text()) is the same reference. May hold the secrets of a URL; for people there is display().
  std::string text() const;
  // Like text(), without user name, password, query and fragment of a URL.
  std::string display() const;

  // kInvalid: malformed; kUnsupported: a scheme that nothing here reads. At most 4096 characters.
  static Result<SourceReference> parse(std::string_view text);
};

// Relative paths in oci: and file: sources become absolute against `working_dir`, and file:PATH a file:// URL;
// everything else stays as it is.
std::string absolute_source(const std::string& source, const std::string& working_dir);

// "%41" becomes "A"; nothing for a broken or a zero escape.
std::optional<std::string> percent_decode(std::string_view text);

// `url` up to its path, without user name, password, query and fragment: what may stand in logs.
std::string url_without_secrets(std::string_view url);

// True for localhost, 127.0.0.0/8 and ::1; `host` may carry a port.
bool is_loopback_host(std::string_view host);

}  // namespace hydrant::proto
