// Any bytes, cut anywhere: no crash, every data byte inside its entry's segments, and the same entries for another cut.
#include <algorithm>
#include <cstdlib>

#include "image/tar/tar_reader.h"

namespace {

using namespace hydrant;
using namespace hydrant::image;

class Checker : public TarVisitor {
 public:
  Result<> on_entry(FileEntry&& entry, TarData&& data) override {
    ++entries;
    next_ = 0;
    segments_ = std::move(data.segments);
    left_ = segments_.empty() ? 0 : segments_[0].length;
    uint64_t end = 0;
    for (const TarSegment& segment : segments_) {
      if (segment.length == 0 || segment.file_offset < end) std::abort();
      end = segment.file_offset + segment.length;
    }
    if (end > entry.size) std::abort();
    return {};
  }
  Result<> on_data(uint64_t tar_offset, Bytes bytes) override {
    if (next_ == segments_.size() || bytes.size() > left_) std::abort();
    const TarSegment& segment = segments_[next_];
    if (tar_offset != segment.tar_offset + segment.length - left_) std::abort();
    left_ -= bytes.size();
    if (left_ == 0 && ++next_ < segments_.size()) left_ = segments_[next_].length;
    return {};
  }
  Result<> on_entry_end() override {
    if (next_ != segments_.size()) std::abort();
    return {};
  }
  uint64_t entries = 0;

 private:
  std::vector<TarSegment> segments_;
  size_t next_ = 0;
  uint64_t left_ = 0;
};

bool read(Bytes bytes, size_t chunk, uint64_t& entries) {
  Checker checker;
  TarReader reader(checker, {.max_entries = 1000});
  bool ok = true;
  while (!bytes.empty() && ok) {
    size_t size = std::min(chunk, bytes.size());
    ok = reader.feed(bytes.first(size)).has_value();
    bytes = bytes.subspan(size);
  }
  entries = checker.entries;
  return ok && reader.finish().has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes = std::as_bytes(std::span(data, size));
  uint64_t whole = 0;
  uint64_t cut = 0;
  if (read(bytes, SIZE_MAX, whole) != read(bytes, 509, cut) || whole != cut) std::abort();
  return 0;
}
