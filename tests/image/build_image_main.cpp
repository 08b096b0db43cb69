// Makes an EROFS metadata image and its device files from tar layers, the plain way: OUT/image.erofs, OUT/device.1 …
// in slot order. Usage: build_image OUT CHUNK LAYER.tar... ; CHUNK is how many bytes the tar reader gets at a time.
#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/byte_range.h"
#include "base/file.h"
#include "image/erofs/writer.h"
#include "image/tar/tar_reader.h"
#include "image/tree/merge.h"

namespace hydrant::image {
namespace {

// Places every segment on whole blocks of the device that nothing else uses.
class PlainDevice : public TarVisitor {
 public:
  Result<> on_entry(FileEntry&& entry, TarData&& data) override {
    segments_ = std::move(data.segments);
    table_.push_back(std::move(entry));
    uint64_t last_block = UINT64_MAX;
    for (const TarSegment& segment : segments_) {
      uint64_t in_block = segment.file_offset % 4096;
      uint64_t block = segment.file_offset / 4096;
      // Segments that meet in one block of the file meet in one block of the device.
      uint64_t at = block == last_block ? bytes_.size() - 4096 + in_block : bytes_.size() + in_block;
      table_.back().data.push_back({segment.file_offset, at, segment.length});
      bytes_.resize(round_up(at + segment.length, 4096));
      last_block = (segment.file_offset + segment.length - 1) / 4096;
    }
    return {};
  }
  Result<> on_data(uint64_t tar_offset, Bytes bytes) override {
    for (size_t i = 0; i < segments_.size(); ++i) {
      const TarSegment& segment = segments_[i];
      if (tar_offset < segment.tar_offset || tar_offset >= segment.tar_offset + segment.length) continue;
      uint64_t at = table_.back().data[i].device_offset + (tar_offset - segment.tar_offset);
      std::copy(bytes.begin(), bytes.end(), bytes_.begin() + at);
    }
    return {};
  }
  Result<> on_entry_end() override { return {}; }

  FileTable table_;
  Buffer bytes_;

 private:
  std::vector<TarSegment> segments_;
};

Result<> write_file(const std::string& path, Bytes bytes) {
  HYDRANT_TRY(Fd fd, open_file(path, O_CREAT | O_WRONLY | O_TRUNC, 0644));
  return pwrite_all(fd.get(), bytes, 0);
}

Result<> run(const std::string& out, size_t chunk, const std::vector<std::string>& layers) {
  std::vector<PlainDevice> devices(layers.size());
  std::vector<const FileTable*> tables;
  std::vector<DeviceInfo> infos;
  for (size_t i = 0; i < layers.size(); ++i) {
    HYDRANT_TRY(std::string tar, read_file(layers[i], size_t{1} << 30));
    TarReader reader(devices[i]);
    for (std::string_view rest = tar; !rest.empty(); rest.remove_prefix(std::min(chunk, rest.size()))) {
      HYDRANT_TRY_VOID(reader.feed(as_bytes(rest.substr(0, chunk))));
    }
    HYDRANT_TRY_VOID(reader.finish());
    tables.push_back(&devices[i].table_);
    infos.push_back({sha256(devices[i].bytes_).hex(), devices[i].bytes_.size()});
  }
  HYDRANT_TRY(Tree tree, merge(tables));
  ErofsOptions options;
  options.image_id = sha256(as_bytes(out));
  HYDRANT_TRY(ErofsImage image, write_erofs(tree, infos, options));
  HYDRANT_TRY_VOID(write_file(out + "/image.erofs", image.bytes));
  for (size_t slot = 0; slot < image.used_layers.size(); ++slot) {
    const Buffer& device = devices[image.used_layers[slot]].bytes_;
    HYDRANT_TRY_VOID(write_file(out + "/device." + std::to_string(slot + 1), device));
  }
  std::printf("%zu\n", image.used_layers.size());
  return {};
}

}  // namespace
}  // namespace hydrant::image

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  auto done = hydrant::image::run(argv[1], std::stoul(argv[2]), {argv + 3, argv + argc});
  if (!done) std::fprintf(stderr, "build_image: %s\n", done.error().what.c_str());
  return done ? 0 : 1;
}
