// Tables made of any bytes, merged and written as an image: a tree or a refusal, never a crash.
#include <cstdlib>

#include "image/erofs/writer.h"
#include "image/tree/merge.h"

namespace {

using namespace hydrant;
using namespace hydrant::image;

std::string take_path(Cursor& cursor) {
  constexpr std::string_view kAlphabet = "ab/.c";
  std::string path;
  auto size = cursor.take<uint8_t>() % 8;
  for (int i = 0; i < size; ++i) path += kAlphabet[cursor.take<uint8_t>() % kAlphabet.size()];
  return path;
}

FileEntry take_entry(Cursor& cursor) {
  FileEntry entry;
  entry.path = take_path(cursor);
  entry.type = static_cast<FileType>(1 + cursor.take<uint8_t>() % 10);
  if (entry.type == FileType::kHardLink || entry.type == FileType::kSymlink) entry.link_target = take_path(cursor);
  if (entry.type != FileType::kRegular) return entry;
  entry.size = cursor.take<uint16_t>();
  for (int pieces = cursor.take<uint8_t>() % 3; pieces > 0; --pieces) {
    DataPiece piece;
    piece.file_offset = cursor.take<uint16_t>();
    piece.device_offset = cursor.take<uint32_t>();
    piece.length = cursor.take<uint16_t>();
    entry.data.push_back(piece);
  }
  for (int xattrs = cursor.take<uint8_t>() % 3; xattrs > 0; --xattrs)
    entry.xattrs.push_back({"user.x", take_path(cursor)});
  return entry;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor cursor(std::as_bytes(std::span(data, size)));
  std::vector<FileTable> layers(1);
  while (!cursor.rest().empty() && layers.size() < 8) {
    if (cursor.take<uint8_t>() == 0) layers.emplace_back();
    layers.back().push_back(take_entry(cursor));
  }
  std::vector<const FileTable*> views;
  for (const FileTable& layer : layers) views.push_back(&layer);
  auto tree = merge(views);
  if (!tree) return 0;
  std::vector<DeviceInfo> devices(layers.size(), DeviceInfo{std::string(64, 'd'), 1 << 20});
  ErofsOptions options;
  options.max_bytes = 16 << 20;
  auto image = write_erofs(*tree, devices, options);
  if (image && image->bytes.size() % 4096 != 0) std::abort();
  return 0;
}
