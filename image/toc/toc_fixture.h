// For tests: layers with tables of contents, as eStargz and zstd:chunked writers make them.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "image/index/index_fixture.h"
#include "image/toc/toc_reference.h"
#include "image/zstd/zstd_fixture.h"

namespace hydrant::image::fixture {

struct TocBlob {
  Buffer stored;
  Buffer tar;  // what the whole of it decompresses to
  std::map<std::string, std::string> annotations;
};

struct TocOptions {
  TocKind kind = TocKind::kEstargz;
  size_t chunk = 256 << 10;
  bool shared = false;        // small files share a member with their headers (eStargz)
  bool position = true;       // zstd:chunked: the manifest tells the place
  bool short_footer = false;  // zstd:chunked: the one of 40 bytes
  std::string prefix = "io.github.containers.zstd-chunked.";
  // To tell lies with: gets the document before it is written.
  std::function<void(nlohmann::json&)> twist = {};
};

class TocWriter {
 public:
  explicit TocWriter(TocOptions options) : options_(std::move(options)) {}

  // An entry without data, in the table alone but for its name in a header of its own.
  void add(nlohmann::json entry) {
    pending(tar({{entry["name"], {}}}));
    entries_.push_back(std::move(entry));
  }

  void add_file(const TarFile& file) {
    const Buffer whole = tar({file});
    nlohmann::json entry = {{"name", file.name},
                            {"type", "reg"},
                            {"size", file.data.size()},
                            {"mode", 0644},
                            {"modtime", "2023-11-14T22:13:20Z"}};
    if (!file.data.empty()) entry["digest"] = sha256(file.data).text();
    if (options_.shared && file.data.size() <= kShared) {
      append(pending_, Bytes(whole).first(512));
      if (!file.data.empty()) {
        entry["offset"] = blob_.stored.size();
        entry["innerOffset"] = pending_.size();
        entry["chunkDigest"] = entry["digest"];
      }
      append(pending_, Bytes(whole).subspan(512, whole.size() - 512 - 1024));
      entries_.push_back(std::move(entry));
      if (pending_.size() > 100'000) flush();
      return;
    }
    pending(whole);
    flush();
    const bool one = file.data.size() <= options_.chunk;
    for (size_t at = 0; at < file.data.size(); at += options_.chunk) {
      const Bytes data = Bytes(file.data).subspan(at, std::min(options_.chunk, file.data.size() - at));
      if (at > 0) entry = {{"name", file.name}, {"type", "chunk"}, {"chunkOffset", at}};
      entry["offset"] = blob_.stored.size();
      if (!one) entry["chunkSize"] = data.size();
      // zstd:chunked writers give the file's digest alone when there is one chunk.
      if (!one || options_.kind == TocKind::kEstargz) entry["chunkDigest"] = sha256(data).text();
      member(data);
      if (options_.kind == TocKind::kZstdChunked) entry["endOffset"] = blob_.stored.size();
      entries_.push_back(std::move(entry));
    }
    if (file.data.empty()) entries_.push_back(std::move(entry));
    append(pending_, Bytes(whole).subspan(512 + file.data.size(), whole.size() - 512 - 1024 - file.data.size()));
  }

  TocBlob finish() {
    nlohmann::json document = {{"version", 1}, {"entries", std::move(entries_)}};
    if (options_.twist) options_.twist(document);
    const std::string json = document.dump();
    if (options_.kind == TocKind::kEstargz) {
      finish_estargz(json);
    } else {
      finish_zstd(json);
    }
    return std::move(blob_);
  }

 private:
  static constexpr size_t kShared = 50'000;

  // The header alone of a member.
  void pending(const Buffer& whole) { append(pending_, Bytes(whole).first(512)); }
  void flush() {
    if (!pending_.empty()) member(std::exchange(pending_, {}));
  }
  void member(Bytes plain) {
    append(blob_.tar, plain);
    append(blob_.stored, options_.kind == TocKind::kEstargz ? gzip(plain) : zstd(plain));
  }

  void finish_estargz(const std::string& json) {
    flush();
    const size_t offset = blob_.stored.size();
    member(tar({{"stargz.index.json", to_buffer(as_bytes(json))}}));
    blob_.annotations["containerd.io/snapshot/stargz/toc.digest"] = sha256(as_bytes(json)).text();
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016zx", offset);
    Buffer footer = to_buffer(as_bytes(std::string_view("\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0", 16)));
    append(footer, as_bytes(std::string(digits) + "STARGZ"));
    append(footer, as_bytes(std::string_view("\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13)));
    append(blob_.stored, footer);
  }

  void finish_zstd(const std::string& json) {
    pending_.resize(pending_.size() + 1024);
    flush();
    const Buffer packed = zstd(as_bytes(json));
    append(blob_.stored, skippable(packed));
    const size_t offset = blob_.stored.size() - packed.size();
    append(blob_.stored, skippable(as_bytes("tar-split data, which nobody here reads")));
    Buffer footer;
    for (uint64_t number : {uint64_t(offset), uint64_t(packed.size()), uint64_t(json.size()), uint64_t(1)})
      append_le(footer, number);
    if (!options_.short_footer)
      for (uint64_t number : {1, 2, 3}) append_le(footer, number);
    append(footer, as_bytes(options_.short_footer ? "GnUlInUx" : "GNUlInUx"));
    append(blob_.stored, skippable(footer));
    blob_.annotations[options_.prefix + "manifest-checksum"] = sha256(packed).text();
    if (options_.position)
      blob_.annotations[options_.prefix + "manifest-position"] =
          std::to_string(offset) + ":" + std::to_string(packed.size()) + ":" + std::to_string(json.size()) + ":1";
  }

  TocOptions options_;
  TocBlob blob_;
  Buffer pending_;  // headers and padding that stand before the next data
  nlohmann::json entries_ = nlohmann::json::array();
};

inline TocBlob toc_blob(const std::vector<TarFile>& files, TocOptions options = {}) {
  TocWriter writer(std::move(options));
  for (const auto& file : files) writer.add_file(file);
  return writer.finish();
}

}  // namespace hydrant::image::fixture
