#include "image/erofs/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "proto/erofs_layout.h"

namespace hydrant::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A reader of the format that shares no structure with the writer: fields by their offsets. It fails the test for what
// a kernel would refuse.
class Reader {
 public:
  struct File {
    uint16_t mode = 0;
    uint64_t size = 0;
    uint32_t uid = 0;
    uint32_t nlink = 0;
    int64_t mtime = 0;
    uint32_t u = 0;
    uint64_t nid = 0;
    unsigned layout = 0;
    bool extended = false;
    std::string content;                                // of directories and links
    std::vector<std::pair<unsigned, uint32_t>> chunks;  // device, block
    std::map<std::string, std::string> xattrs;          // "prefix number:rest"
  };

  explicit Reader(const Buffer& image) : image_(image) {
    EXPECT_EQ(u32(1024), 0xE0F5E1E2u);
    EXPECT_EQ(image.size() % 4096, 0u);
    EXPECT_EQ(u32(1024 + 36), image.size() / 4096);
    Buffer block(image.begin() + 1024, image.begin() + 4096);
    std::memset(block.data() + 4, 0, 4);
    EXPECT_EQ(proto::erofs::checksum(block), u32(1024 + 4));
    walk("", u16(1024 + 14), u16(1024 + 14));
  }

  uint16_t u16(uint64_t at) const { return load_le<uint16_t>(&image_.at(at + 1) - 1); }
  uint32_t u32(uint64_t at) const { return load_le<uint32_t>(&image_.at(at + 3) - 3); }
  uint64_t u64(uint64_t at) const { return load_le<uint64_t>(&image_.at(at + 7) - 7); }
  std::string text(uint64_t at, uint64_t size) const {
    EXPECT_LE(at + size, image_.size());
    return std::string(as_text(Bytes(image_).subspan(at, size)));
  }

  std::map<std::string, File> files;

 private:
  File load(uint64_t nid) {
    File file;
    file.nid = nid;
    uint64_t at = uint64_t{u32(1024 + 40)} * 4096 + nid * 32;
    uint16_t format = u16(at);
    file.extended = format & 1;
    file.layout = format >> 1;
    file.mode = u16(at + 4);
    file.size = file.extended ? u64(at + 8) : u32(at + 8);
    file.u = u32(at + 16);
    file.uid = file.extended ? u32(at + 24) : u16(at + 24);
    file.nlink = file.extended ? u32(at + 44) : u16(at + 6);
    file.mtime = file.extended ? u64(at + 32) : u64(1024 + 24);
    uint64_t head = file.extended ? 64 : 32;
    EXPECT_EQ(at / 4096, (at + head - 1) / 4096) << "an inode crosses blocks";
    uint64_t behind = at + head;
    if (uint16_t count = u16(at + 2)) {
      load_xattrs(file, behind, 12 + 4 * (count - 1));
      behind += 12 + 4 * (count - 1);
    }
    if (file.layout == 4) {
      uint64_t bits = 12 + (file.u & 31);
      EXPECT_EQ(file.u & ~31u, 0x20u);
      behind = (behind + 7) / 8 * 8;
      for (uint64_t chunk = 0; chunk << bits < file.size; ++chunk, behind += 8) {
        EXPECT_EQ(u16(behind), 0);
        file.chunks.emplace_back(u16(behind + 2), u32(behind + 4));
      }
    } else if ((file.mode & S_IFMT) == S_IFDIR || (file.mode & S_IFMT) == S_IFLNK) {
      uint64_t in_blocks = file.layout == 2 ? file.size / 4096 * 4096 : file.size;
      if (in_blocks > 0) file.content = text(uint64_t{file.u} * 4096, in_blocks);
      if (file.size > in_blocks) {
        EXPECT_EQ(behind / 4096, (behind + file.size - in_blocks - 1) / 4096) << "an inline tail crosses blocks";
        file.content += text(behind, file.size - in_blocks);
      }
    }
    return file;
  }

  void load_xattrs(File& file, uint64_t at, uint64_t size) {
    uint64_t end = at + size;
    unsigned shared = std::to_integer<uint8_t>(image_.at(at + 4));
    at += 12;
    for (unsigned i = 0; i < shared; ++i, at += 4) {
      load_xattr(file, uint64_t{u32(1024 + 44)} * 4096 + uint64_t{u32(at)} * 4);
    }
    while (at < end) at = load_xattr(file, at);
    EXPECT_EQ(at, end);
  }
  uint64_t load_xattr(File& file, uint64_t at) {
    unsigned name = std::to_integer<uint8_t>(image_.at(at));
    unsigned prefix = std::to_integer<uint8_t>(image_.at(at + 1));
    unsigned value = u16(at + 2);
    file.xattrs[std::to_string(prefix) + ":" + text(at + 4, name)] = text(at + 4 + name, value);
    return (at + 4 + name + value + 3) / 4 * 4;
  }

  void walk(const std::string& path, uint64_t nid, uint64_t parent) {
    File file = load(nid);
    if ((file.mode & S_IFMT) == S_IFDIR) {
      std::string last;
      std::map<std::string, uint64_t> dots;
      for (uint64_t block = 0; block < file.content.size(); block += 4096) {
        std::string bytes = file.content.substr(block, 4096);
        auto field = [&](size_t at) { return load_le<uint16_t>(as_bytes(bytes).data() + at); };
        unsigned count = field(8) / 12;
        for (unsigned i = 0; i < count; ++i) {
          size_t begin = field(i * 12 + 8);
          size_t end = i + 1 < count ? field((i + 1) * 12 + 8) : bytes.size();
          std::string name = bytes.substr(begin, end - begin);
          name = name.substr(0, name.find('\0'));
          EXPECT_LT(last, name) << path;
          last = name;
          auto child = load_le<uint64_t>(as_bytes(bytes).data() + i * 12);
          if (name == "." || name == "..") {
            dots[name] = child;
          } else {
            walk(path + "/" + name, child, nid);
          }
        }
      }
      EXPECT_EQ(dots, (std::map<std::string, uint64_t>{{".", nid}, {"..", parent}})) << path;
    }
    files[path] = std::move(file);
  }

  const Buffer& image_;
};

FileEntry entry(std::string path, FileType type = FileType::kRegular, uint64_t size = 0,
                std::vector<DataPiece> data = {}) {
  FileEntry out;
  out.path = std::move(path);
  out.type = type;
  out.mode = 0644;
  out.mtime = 1000;
  out.size = size;
  out.data = std::move(data);
  return out;
}

constexpr uint64_t kDevice = 64 << 20;
constexpr uint32_t kHole = 0xFFFFFFFF;

Result<ErofsImage> build(const std::vector<FileTable>& layers, ErofsOptions options = {}) {
  std::vector<const FileTable*> views;
  std::vector<DeviceInfo> devices;
  for (const FileTable& layer : layers) {
    views.push_back(&layer);
    devices.push_back({std::string(64, static_cast<char>('a' + devices.size())), kDevice});
  }
  HYDRANT_TRY(Tree tree, merge(views));
  return write_erofs(tree, devices, options);
}

using Chunks = std::vector<std::pair<unsigned, uint32_t>>;

TEST(ErofsWriter, AFileInOnePieceHasOneChunk) {
  ErofsImage image = *build({{entry("f", FileType::kRegular, 5'000'000, {{0, 8192, 5'000'000}})}});
  Reader::File file = Reader(image.bytes).files["/f"];
  EXPECT_EQ(file.size, 5'000'000u);
  EXPECT_EQ(file.chunks, (Chunks{{1, 2}}));
}

TEST(ErofsWriter, HolesBecomeHolesOfTheLargestChunksThatFit) {
  FileTable table = {
      entry("hole", FileType::kRegular, 1 << 30),
      entry("aligned", FileType::kRegular, 65536, {{0, 0, 16384}, {32768, 40960, 16384}}),
      entry("odd", FileType::kRegular, 20000, {{4096, 4096, 100}}),
      entry("split", FileType::kRegular, 16384, {{0, 0, 8192}, {8192, 81920, 8192}}),
      entry("late", FileType::kRegular, 9000, {{5000, 5000, 4000}}),
      entry("joined", FileType::kRegular, 8192, {{0, 4096, 1000}, {1500, 5596, 6692}}),
  };
  ErofsImage image = *build({table});
  Reader reader(image.bytes);
  EXPECT_EQ(reader.files["/hole"].chunks, (Chunks{{0, kHole}}));
  EXPECT_EQ(reader.files["/aligned"].chunks, (Chunks{{1, 0}, {0, kHole}, {1, 10}, {0, kHole}}));
  EXPECT_EQ(reader.files["/odd"].chunks, (Chunks{{0, kHole}, {1, 1}, {0, kHole}, {0, kHole}, {0, kHole}}));
  EXPECT_EQ(reader.files["/split"].chunks, (Chunks{{1, 0}, {1, 20}}));
  EXPECT_EQ(reader.files["/late"].chunks, (Chunks{{0, kHole}, {1, 1}, {1, 2}}));
  EXPECT_EQ(reader.files["/joined"].chunks, (Chunks{{1, 1}}));
}

TEST(ErofsWriter, HolesInFrontOfDataCanBeFilled) {
  FileTable table = {
      entry("hole", FileType::kRegular, 1 << 30),
      entry("aligned", FileType::kRegular, 65536, {{0, 0, 16384}, {32768, 40960, 16384}}),
      entry("late", FileType::kRegular, 9000, {{5000, 5000, 4000}}),
      entry("far", FileType::kRegular, (8 << 20) + 1, {{8 << 20, 0, 1}}),
      entry("whole", FileType::kRegular, 8 << 20, {{0, 0, 8 << 20}}),
      entry("tail", FileType::kRegular, 65536, {{0, 0, 16384}}),
  };
  ErofsImage image = *build({table}, {.image_id = {}, .fill_holes = true});
  Reader reader(image.bytes);
  // 1 MiB of zeros at the end.
  const auto zeros = static_cast<uint32_t>(image.bytes.size() / 4096 - 256);
  EXPECT_TRUE(
      std::all_of(image.bytes.end() - (1 << 20), image.bytes.end(), [](std::byte b) { return b == std::byte{}; }));
  EXPECT_EQ(reader.files["/hole"].chunks, (Chunks{{0, kHole}}));
  EXPECT_EQ(reader.files["/aligned"].chunks, (Chunks{{1, 0}, {0, zeros}, {1, 10}, {0, kHole}}));
  EXPECT_EQ(reader.files["/late"].chunks, (Chunks{{0, zeros}, {1, 1}, {1, 2}}));
  Chunks far(8, {0, zeros});
  far.emplace_back(1, 0);
  EXPECT_EQ(reader.files["/far"].chunks, far);
  EXPECT_EQ(reader.files["/whole"].chunks, (Chunks{{1, 0}}));
  EXPECT_EQ(reader.files["/tail"].chunks, (Chunks{{1, 0}, {0, kHole}, {0, kHole}, {0, kHole}}));
  ErofsImage none = *build({{entry("f", FileType::kRegular, 10, {{0, 0, 10}})}}, {.image_id = {}, .fill_holes = true});
  EXPECT_EQ(none.bytes, build({{entry("f", FileType::kRegular, 10, {{0, 0, 10}})}})->bytes);
}

TEST(ErofsWriter, OnlyLayersWithLiveDataGetADevice) {
  std::vector<FileTable> layers = {{entry("a", FileType::kRegular, 10, {{0, 0, 10}})},
                                   {entry("b", FileType::kRegular, 10, {{0, 0, 10}}), entry("d", FileType::kDirectory)},
                                   {entry("b", FileType::kRegular, 0)},
                                   {entry("c", FileType::kRegular, 10, {{0, 4096, 10}})}};
  ErofsImage image = *build(layers);
  EXPECT_THAT(image.used_layers, ElementsAre(0u, 3u));
  Reader reader(image.bytes);
  EXPECT_EQ(reader.files["/a"].chunks, (Chunks{{1, 0}}));
  EXPECT_EQ(reader.files["/c"].chunks, (Chunks{{2, 1}}));
  EXPECT_EQ(reader.files["/b"].u, kHole);
  EXPECT_EQ(reader.u32(1024 + 80), 0xCu);
  EXPECT_EQ(reader.u16(1024 + 86), 2);
  EXPECT_EQ(reader.text(1152, 64), std::string(64, 'a'));
  EXPECT_EQ(reader.text(1280, 64), std::string(64, 'd'));
  EXPECT_EQ(reader.u32(1152 + 64), kDevice / 4096);
  EXPECT_EQ(reader.u32(1152 + 68), image.bytes.size() / 4096);
  EXPECT_EQ(reader.u32(1280 + 68), image.bytes.size() / 4096 + kDevice / 4096);
  EXPECT_EQ(Reader(build({{entry("e")}})->bytes).u32(1024 + 80), 0x4u);
}

TEST(ErofsWriter, DirectoriesOfAllSizesStaySorted) {
  FileTable table;
  for (int dir = 0; dir < 40; ++dir) {
    std::string base = "d" + std::to_string(dir);
    table.push_back(entry(base, FileType::kDirectory));
    for (int i = 0; i < dir * dir * 2; ++i) {
      table.push_back(entry(base + "/" + std::string(i * 7 % 200, 'n') + std::to_string(i)));
    }
  }
  for (const char* name : {"!a", "+x", "-y", ".hidden", "..dots", "\xff"}) table.push_back(entry(name));
  ErofsImage image = *build({table});
  Reader reader(image.bytes);
  EXPECT_EQ(reader.files.size(), table.size() + 1);
  EXPECT_EQ(reader.files[""].nlink, 42u);
}

TEST(ErofsWriter, KeepsWhatInodesSay) {
  FileEntry device = entry("dev", FileType::kBlockDevice);
  device.rdev_major = 259;
  device.rdev_minor = 70000;
  FileEntry link = entry("link", FileType::kSymlink);
  link.link_target = std::string(4095, 't');
  FileEntry old = entry("old");
  old.mtime = -5;
  old.uid = 4'000'000'000;
  FileEntry second = entry("second", FileType::kHardLink);
  second.link_target = "old";
  ErofsImage image = *build({{device, link, old, second, entry("deep/er/file")}});
  Reader reader(image.bytes);
  EXPECT_EQ(reader.files["/dev"].u, (70000 & 0xff) | 259 << 8 | (70000 & ~0xff) << 12);
  EXPECT_EQ(reader.files["/dev"].mode, S_IFBLK | 0644);
  EXPECT_EQ(reader.files["/link"].content, link.link_target);
  EXPECT_EQ(reader.files["/link"].mode, S_IFLNK | 0777) << "whatever its layer says";
  EXPECT_EQ(reader.files["/old"].mtime, -5);
  EXPECT_EQ(reader.files["/old"].uid, 4'000'000'000);
  EXPECT_EQ(reader.files["/old"].nlink, 2u);
  EXPECT_EQ(reader.files["/second"].nid, reader.files["/old"].nid);
  EXPECT_EQ(reader.files["/deep"].mode, S_IFDIR | 0755);
  EXPECT_EQ(reader.files["/deep/er"].mtime, 0);
}

TEST(ErofsWriter, InodesAreSmallWhereNothingIsLost) {
  ErofsOptions options;
  options.build_time = 1000;
  FileEntry other = entry("other");
  other.mtime_nsec = 1;
  FileEntry foreign = entry("foreign");
  foreign.uid = 70000;
  ErofsImage image = *build({{entry("same"), other, foreign}}, options);
  Reader reader(image.bytes);
  EXPECT_FALSE(reader.files["/same"].extended);
  EXPECT_EQ(reader.files["/same"].mtime, 1000);
  EXPECT_TRUE(reader.files["/other"].extended);
  EXPECT_TRUE(reader.files["/foreign"].extended);
}

TEST(ErofsWriter, SharesAttributesThatThreeFilesHave) {
  FileTable table;
  for (int i = 0; i < 4; ++i) {
    FileEntry file = entry("f" + std::to_string(i));
    file.xattrs = {{"security.capability", "cap"},
                   {"system.posix_acl_access", "acl" + std::to_string(i / 2)},
                   {"user.own", std::to_string(i)},
                   {"weird.prefix", "dropped"}};
    table.push_back(file);
  }
  ErofsImage image = *build({table});
  EXPECT_EQ(image.dropped_xattrs, 4u);
  Reader reader(image.bytes);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(reader.files["/f" + std::to_string(i)].xattrs,
              (std::map<std::string, std::string>{
                  {"6:capability", "cap"}, {"2:", "acl" + std::to_string(i / 2)}, {"1:own", std::to_string(i)}}));
  }
  EXPECT_EQ(reader.text(uint64_t{reader.u32(1024 + 44)} * 4096 + 4, 13), "capabilitycap");
}

TEST(ErofsWriter, TheSameInputGivesTheSameBytes) {
  std::vector<FileTable> layers = {{entry("a"), entry("b", FileType::kRegular, 10, {{0, 0, 10}})}};
  EXPECT_EQ(build(layers)->bytes, build(layers)->bytes);
  ErofsOptions other;
  other.image_id = sha256(as_bytes("x"));
  EXPECT_NE(build(layers)->bytes, build(layers, other)->bytes);
}

TEST(ErofsWriter, RefusesPiecesThatContradictThemselves) {
  for (std::vector<DataPiece> pieces : std::vector<std::vector<DataPiece>>{
           {{0, 1, 10}},                    // another place in the block
           {{0, 0, 8193}},                  // past the file
           {{0, kDevice, 10}},              // past the device
           {{0, UINT64_MAX - 4095, 4096}},  // overflow
           {{0, 0, 10}, {5, 5, 10}},        // overlap
           {{100, 100, 10}, {0, 0, 10}},    // unordered
           {{0, 0, 10}, {100, 8292, 10}},   // one block at two places
           {{0, 0, 0}},                     // empty
       }) {
    auto image = build({{entry("f", FileType::kRegular, 8192, pieces)}});
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, Code::kCorrupt);
    EXPECT_THAT(image.error().what, HasSubstr("\"f\""));
  }
}

TEST(ErofsWriter, RefusesWhatTheFormatCannotHold) {
  FileEntry device = entry("device", FileType::kCharDevice);
  device.rdev_major = 5000;
  FileEntry link = entry("link", FileType::kSymlink);
  link.link_target = std::string(4096, 't');
  FileEntry xattr = entry("xattr");
  xattr.xattrs = {{"user." + std::string(256, 'n'), ""}};
  FileEntry many = entry("many");
  for (int i = 0; i < 5; ++i) many.xattrs.push_back({"user." + std::to_string(i), std::string(65535, 'v')});
  // A few bytes of a tar that ask for 2^32 chunk indexes.
  FileEntry huge = entry("huge", FileType::kRegular, uint64_t{1} << 44, {{4096, 4096, 1}});
  FileEntry larger = entry("larger", FileType::kRegular, (uint64_t{1} << 44) + 1);
  for (const FileEntry& bad : {device, link, xattr, many, huge, larger}) {
    auto image = build({{bad}});
    ASSERT_FALSE(image) << bad.path;
    EXPECT_EQ(image.error().code, Code::kUnsupported);
    EXPECT_THAT(image.error().what, HasSubstr(bad.path));
  }
}

TEST(ErofsLayout, ChecksumIsTheOneOfTheFormat) {
  EXPECT_EQ(proto::erofs::checksum(as_bytes("123456789")), 0x1CF96D7Cu);
}

}  // namespace
}  // namespace hydrant::image
