// For tests: small tar archives, and the index and device that the builder makes of a stored layer.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "image/gzip/gzip_fixture.h"
#include "image/index/layer_builder.h"
#include "image/index/zstd_frame.h"

namespace hydrant::image::fixture {

struct TarFile {
  std::string name;
  Buffer data;
};

inline Buffer tar(const std::vector<TarFile>& files) {
  Buffer out;
  for (const auto& file : files) {
    char header[512] = {};
    std::snprintf(header, 100, "%s", file.name.c_str());
    std::snprintf(header + 100, 8, "%07o", 0644);
    std::snprintf(header + 108, 8, "%07o", 0);
    std::snprintf(header + 116, 8, "%07o", 0);
    std::snprintf(header + 124, 12, "%011zo", file.data.size());
    std::snprintf(header + 136, 12, "%011o", 1'700'000'000);
    header[156] = '0';
    std::copy_n("ustar\00000", 8, header + 257);
    std::fill_n(header + 148, 8, ' ');
    unsigned sum = 0;
    for (char c : header) sum += uint8_t(c);
    std::snprintf(header + 148, 8, "%06o", sum);
    append(out, std::as_bytes(std::span(header)));
    append(out, file.data);
    out.resize((out.size() + 511) / 512 * 512);
  }
  out.resize(out.size() + 1024);
  return out;
}

// Files of every awkward size.
inline std::vector<TarFile> many_files(uint32_t seed = 1) {
  std::vector<TarFile> files;
  std::mt19937 random(seed);
  for (size_t size : {0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 1'000'000, 0, 3'500'000})
    files.push_back({"fixed/" + std::to_string(files.size()), mixture(size, random())});
  for (int i = 0; i < 200; ++i) files.push_back({"small/" + std::to_string(i), mixture(random() % 20'000, random())});
  files.push_back({"large", mixture(2'222'222, random())});
  return files;
}

struct Built {
  BuiltLayer layer;
  Buffer device;
};

inline LayerExpectation expectation(Bytes stored, Bytes tar_bytes, std::string media_type = "layer.v1.tar+gzip") {
  return {sha256(stored), stored.size(), sha256(tar_bytes), std::move(media_type)};
}

inline Result<Built> build(Bytes stored, const LayerExpectation& expected, LayerBuilderOptions options = {},
                           size_t step = 50'000) {
  Built built;
  LayerBuilder builder(expected, options, [&](uint64_t offset, Bytes bytes) -> Result<> {
    if (offset != built.device.size()) return fail(Code::kInvalid, "sink called out of order");
    append(built.device, bytes);
    return {};
  });
  for (size_t at = 0; at < stored.size(); at += step)
    HYDRANT_TRY_VOID(builder.feed(stored.subspan(at, std::min(step, stored.size() - at))));
  HYDRANT_TRY(built.layer, builder.finish());
  return built;
}

// The content of an index that proves the same spans as they are stored; of a plain tar, spans of 100 000 bytes.
inline LayerIndexContent as_stored(const LayerIndex& index, Bytes stored) {
  LayerIndexContent content;
  content.ident = index.ident();
  content.ident.diff_id = {};
  content.files = *index.files();
  content.rows = index.rows();
  for (size_t i = 0; i < index.span_count(); ++i) {
    const Span span = index.span(i);
    content.checkpoints.push_back(span.start);
    const Buffer window = *index.window(i);
    content.windows.push_back(window.empty() ? Buffer() : zstd_compress(window, 3));
    content.stored_digests.push_back(sha256(stored.subspan(span.stored().begin, span.stored().size())));
  }
  for (size_t at = 0; index.span_count() == 0 && at < stored.size(); at += 100'000) {
    content.checkpoints.push_back({at, at, 0, true});
    content.windows.emplace_back();
    content.stored_digests.push_back(sha256(stored.subspan(at, std::min<size_t>(100'000, stored.size() - at))));
  }
  return content;
}

}  // namespace hydrant::image::fixture
