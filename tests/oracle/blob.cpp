#include "tests/oracle/blob.h"

#include <algorithm>
#include <cstring>

namespace hydrant::oracle {
namespace {

constexpr size_t kSlot = 32, kRoot = 2048, kFile = 2560, kDeviceFiles = 2688, kDeviceFileStep = 128,
                 kDeviceTable = 3072;
constexpr uint8_t kDirectory = 2, kRegular = 1;

void put(std::string& block, size_t at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) block[at + size_t(i)] = static_cast<char>(value >> (8 * i));
}

// A compact inode; `where` is its raw block or its chunk format.
void inode(std::string& block, size_t at, unsigned layout, unsigned mode, uint64_t size, uint32_t where) {
  put(block, at, layout << 1, 2);
  put(block, at + 4, mode, 2);
  put(block, at + 6, mode & 0x4000 ? 2 : 1, 2);
  put(block, at + 8, size, 4);
  put(block, at + 16, where, 4);
  put(block, at + 20, at / kSlot, 4);
}

// Block 0 of an image: a root with the file "f" in blocks 1.. and a file "x1", "x2" for each device.
std::string metadata(std::string_view image) {
  auto devices = devices_of(image);
  std::string block(kPage, '\0');
  constexpr size_t sb = 1024;
  put(block, sb, 0xE0F5E1E2, 4);
  put(block, sb + 12, 12, 1);
  put(block, sb + 14, kRoot / kSlot, 2);
  put(block, sb + 16, 2 + devices.size(), 8);
  put(block, sb + 36, kFileBlocks + 1, 4);
  put(block, sb + 80, devices.empty() ? 0 : 0xC, 4);  // chunked files, device table
  put(block, sb + 86, devices.size(), 2);
  put(block, sb + 88, kDeviceTable / 128, 2);

  struct Entry {
    std::string name;
    size_t at;
    uint8_t type;
  };
  std::vector<Entry> entries{{".", kRoot, kDirectory}, {"..", kRoot, kDirectory}, {"f", kFile, kRegular}};
  for (size_t i = 0; i < devices.size(); ++i)
    entries.push_back({"x" + std::to_string(i + 1), kDeviceFiles + i * kDeviceFileStep, kRegular});
  size_t names = 12 * entries.size(), data = kRoot + 32;
  for (size_t i = 0; i < entries.size(); ++i) {
    put(block, data + 12 * i, entries[i].at / kSlot, 8);
    put(block, data + 12 * i + 8, names, 2);
    put(block, data + 12 * i + 10, entries[i].type, 1);
    std::copy(entries[i].name.begin(), entries[i].name.end(), block.begin() + static_cast<long>(data + names));
    names += entries[i].name.size();
  }
  inode(block, kRoot, 2, 0x41ED, names, 0);
  inode(block, kFile, 0, 0x8124, kFileBlocks * kPage, 1);
  for (size_t i = 0; i < devices.size(); ++i) {
    size_t at = kDeviceFiles + i * kDeviceFileStep;
    inode(block, at, 4, 0x8124, kFileBlocks * kPage, 0x20 | 4);  // one chunk of 16 blocks, by index
    put(block, at + 32 + 2, i + 1, 2);
    size_t slot = kDeviceTable + 128 * i;
    std::copy(devices[i].begin(), devices[i].end(), block.begin() + static_cast<long>(slot));
    put(block, slot + 64, kFileBlocks, 4);
    put(block, slot + 68, (i + 1) << 20, 4);
  }
  return block;
}

std::string block_of(std::string_view name, uint64_t index) {
  bool image = name.find_first_of("xy") != 0;
  if (index == 0 && image) return metadata(name);
  std::string block(kPage, '\0');
  uint64_t state = index * 0x9E3779B97F4A7C15 + 1;
  for (char c : name) state = (state ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  for (size_t i = 0; i < kPage; i += 8) put(block, i, state = state * 6364136223846793005 + 1442695040888963407, 8);
  return block;
}

}  // namespace

std::vector<std::string> devices_of(std::string_view image) {
  if (image.empty()) return {};
  if (image[0] == 'p' || image[0] == 'q') return {"x"};
  if (image[0] == 's' || image[0] == 't') return {"x", "y"};
  return {};
}

std::string blob_bytes(std::string_view name, uint64_t offset, size_t size) {
  std::string out;
  while (out.size() < size) {
    uint64_t at = offset + out.size();
    auto block = block_of(name, at / kPage);
    out += block.substr(at % kPage, size - out.size());
  }
  return out;
}

}  // namespace hydrant::oracle
