#include "image/toc/toc_reference.h"

#include <array>

#include "image/tar/tar_pax.h"

namespace hydrant::image {
namespace {

using Annotations = std::map<std::string, std::string>;

constexpr char kEstargzDigest[] = "containerd.io/snapshot/stargz/toc.digest";
constexpr std::array<const char*, 2> kZstdPrefixes = {"io.github.containers.zstd-chunked.",
                                                      "io.containers.zstd-chunked."};

const std::string* find(const Annotations& annotations, const std::string& name) {
  auto found = annotations.find(name);
  return found == annotations.end() ? nullptr : &found->second;
}

// "offset:length:plain length:type"
std::optional<TocPlace> place_of(std::string_view text) {
  std::array<uint64_t, 4> numbers{};
  for (size_t i = 0; i < numbers.size(); ++i) {
    const size_t colon = std::min(text.find(':'), text.size());
    const auto number = parse_decimal(text.substr(0, colon));
    if (!number || (colon == text.size()) != (i + 1 == numbers.size())) return std::nullopt;
    numbers[i] = *number;
    text.remove_prefix(std::min(colon + 1, text.size()));
  }
  const auto stored = make_range(numbers[0], numbers[1]);
  if (!stored || stored->empty() || numbers[3] != kTocTypeCrfs) return std::nullopt;
  return TocPlace{*stored, numbers[2]};
}

}  // namespace

std::optional<TocReference> toc_reference(const Annotations& annotations) {
  for (const std::string prefix : kZstdPrefixes) {
    const auto* checksum = find(annotations, prefix + "manifest-checksum");
    if (!checksum) continue;
    const Digest digest = toc_digest(*checksum);
    if (digest.is_zero()) return std::nullopt;
    TocReference toc{TocKind::kZstdChunked, digest, {}};
    if (const auto* position = find(annotations, prefix + "manifest-position")) {
      toc.place = place_of(*position);
      if (!toc.place) return std::nullopt;
    }
    return toc;
  }
  if (const auto* text = find(annotations, kEstargzDigest))
    if (const Digest digest = toc_digest(*text); !digest.is_zero()) return TocReference{TocKind::kEstargz, digest, {}};
  return std::nullopt;
}

Digest toc_digest(const std::string& text) {
  return text.starts_with("sha256:") ? Digest::parse(text).value_or(Digest{}) : Digest{};
}

std::string to_string(TocKind kind) { return kind == TocKind::kEstargz ? "eStargz" : "zstd:chunked"; }

}  // namespace hydrant::image
