#include "image/tar/tar_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "image/tar/test_tar.h"

namespace hydrant::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Seen {
  FileEntry entry;
  TarData data;
  std::string bytes;
  bool ended = false;
  bool operator==(const Seen& other) const {
    return entry == other.entry && data.segments == other.data.segments && bytes == other.bytes && ended == other.ended;
  }
};

class Recorder : public TarVisitor {
 public:
  Result<> on_entry(FileEntry&& entry, TarData&& data) override {
    seen.push_back({std::move(entry), std::move(data), {}, false});
    return {};
  }
  Result<> on_data(uint64_t tar_offset, Bytes bytes) override {
    Seen& last = seen.back();
    bool inside = false;
    for (const TarSegment& segment : last.data.segments) {
      inside |= tar_offset >= segment.tar_offset && tar_offset + bytes.size() <= segment.tar_offset + segment.length;
    }
    EXPECT_TRUE(inside);
    EXPECT_FALSE(bytes.empty());
    last.bytes += as_text(bytes);
    return {};
  }
  Result<> on_entry_end() override {
    seen.back().ended = true;
    return {};
  }
  std::vector<Seen> seen;
};

struct Outcome {
  std::vector<Seen> seen;
  Result<> result;
};

Outcome read(std::string_view archive, size_t chunk = SIZE_MAX, TarLimits limits = {}) {
  Recorder recorder;
  TarReader reader(recorder, limits);
  Result<> result;
  for (std::string_view rest = archive; !rest.empty() && result;) {
    std::string_view part = rest.substr(0, chunk);
    result = reader.feed(as_bytes(part));
    rest.remove_prefix(part.size());
  }
  if (result) result = reader.finish();
  return {std::move(recorder.seen), std::move(result)};
}

TestMember member(std::string name, char type = '0', std::string data = {}) {
  TestMember out;
  out.name = std::move(name);
  out.type = type;
  out.data = std::move(data);
  return out;
}
TestMember link(std::string name, char type, std::string target) {
  TestMember out = member(std::move(name), type);
  out.link = std::move(target);
  return out;
}

FileEntry only(const TestTar& tar) {
  Outcome outcome = read(tar.bytes());
  EXPECT_TRUE(outcome.result) << outcome.result.error().what;
  EXPECT_EQ(outcome.seen.size(), 1u);
  return outcome.seen.empty() ? FileEntry{} : outcome.seen[0].entry;
}

void expect_refused(std::string_view archive, Code code, std::string_view words) {
  Outcome outcome = read(archive);
  ASSERT_FALSE(outcome.result);
  EXPECT_EQ(outcome.result.error().code, code) << outcome.result.error().what;
  EXPECT_THAT(outcome.result.error().what, HasSubstr(std::string(words)));
}

TEST(TarReader, GivesAFileWithThePlaceOfItsBytes) {
  TestMember file = member("./dir//file", '0', "hello");
  file.mode = 0100755;
  file.uid = 7;
  file.gid = 8;
  file.mtime = 1234;
  Outcome outcome = read(TestTar().add(member("before", '0', std::string(600, 'x'))).add(file).end().bytes());
  ASSERT_TRUE(outcome.result) << outcome.result.error().what;
  ASSERT_EQ(outcome.seen.size(), 2u);
  const Seen& seen = outcome.seen[1];
  EXPECT_EQ(seen.entry.path, "dir/file");
  EXPECT_EQ(seen.entry.mode, 0755);
  EXPECT_EQ(seen.entry.uid, 7u);
  EXPECT_EQ(seen.entry.gid, 8u);
  EXPECT_EQ(seen.entry.mtime, 1234);
  EXPECT_EQ(seen.entry.size, 5u);
  EXPECT_EQ(seen.data.tar_offset, 512u + 1024 + 512);
  EXPECT_THAT(seen.data.segments, ElementsAre(TarSegment{0, 2048, 5}));
  EXPECT_EQ(seen.bytes, "hello");
  EXPECT_TRUE(seen.ended);
}

TEST(TarReader, KnowsEveryType) {
  TestMember device = member("c", '3');
  device.major = 5;
  device.minor = 300;
  TestTar tar;
  tar.add(member("r", '\0')).add(member("r7", '7')).add(link("h", '1', "/./r")).add(link("s", '2', "../x"));
  tar.add(device).add(member("b", '4')).add(member("d", '5')).add(member("v7dir/", '\0')).add(member("f", '6'));
  Outcome outcome = read(tar.bytes());
  ASSERT_TRUE(outcome.result) << outcome.result.error().what;
  std::vector<FileType> types;
  for (const Seen& seen : outcome.seen) types.push_back(seen.entry.type);
  EXPECT_THAT(types, ElementsAre(FileType::kRegular, FileType::kRegular, FileType::kHardLink, FileType::kSymlink,
                                 FileType::kCharDevice, FileType::kBlockDevice, FileType::kDirectory,
                                 FileType::kDirectory, FileType::kFifo));
  EXPECT_EQ(outcome.seen[2].entry.link_target, "r");
  EXPECT_EQ(outcome.seen[3].entry.link_target, "../x");
  EXPECT_EQ(outcome.seen[4].entry.rdev_major, 5u);
  EXPECT_EQ(outcome.seen[4].entry.rdev_minor, 300u);
}

TEST(TarReader, JoinsPrefixAndNameOfUstarButNotOfGnu) {
  TestMember file = member("name");
  file.prefix = "some/where";
  EXPECT_EQ(only(TestTar().add(file)).path, "some/where/name");
  file.magic = std::string("ustar  \0", 8);
  EXPECT_EQ(only(TestTar().add(file)).path, "name");
}

TEST(TarReader, TakesBothChecksums) {
  TestMember file = member("\xff\xfe");
  EXPECT_EQ(only(TestTar().add(file)).path, "\xff\xfe");
  file.signed_checksum = true;
  EXPECT_EQ(only(TestTar().add(file)).path, "\xff\xfe");
}

TEST(TarReader, ReadsBase256Numbers) {
  TestMember file = member("f");
  TestTar tar;
  tar.add(file);
  std::string block = tar.bytes();
  std::memcpy(block.data() + 108, "\x80\0\0\0\xff\xff\xff\xfe", 8);                         // uid
  std::memcpy(block.data() + 136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12);  // mtime
  FileEntry entry = only(TestTar().add_block(block));
  EXPECT_EQ(entry.uid, 0xfffffffeu);
  EXPECT_EQ(entry.mtime, -2);
  std::memset(block.data() + 124, '\xff', 12);  // a negative size
  expect_refused(TestTar().add_block(block).bytes(), Code::kCorrupt, "negative");
  std::memset(block.data() + 124, 0x7f, 12);
  block[124] = '\x80';
  expect_refused(TestTar().add_block(block).bytes(), Code::kCorrupt, "63 bits");
}

TEST(TarReader, PaxValuesWinOverTheHeader) {
  TestTar tar;
  std::string name(300, '/');
  for (size_t i = 0; i < name.size(); ++i) name[i] = i % 60 == 59 ? '/' : 'n';
  tar.pax({{"path", name + "x"},
           {"uid", "4000000000"},
           {"gid", "70000"},
           {"mtime", "-1.5"},
           {"comment", "ignored"},
           {"SCHILY.xattr.user.b", std::string("a\0b\n", 4)},
           {"LIBARCHIVE.xattr.user.a%3d", "AAEC/w"},
           {"SCHILY.xattr.trusted.overlay.opaque", "y"},
           {"SCHILY.xattr.user.overlay.whiteout", "y"}});
  FileEntry entry = only(tar.add(member("short")));
  EXPECT_EQ(entry.path, name + "x");
  EXPECT_EQ(entry.uid, 4000000000u);
  EXPECT_EQ(entry.gid, 70000u);
  EXPECT_EQ(entry.mtime, -2);
  EXPECT_EQ(entry.mtime_nsec, 500'000'000u);
  EXPECT_THAT(entry.xattrs,
              ElementsAre(Xattr{"user.a=", std::string("\0\1\2\xff", 4)}, Xattr{"user.b", std::string("a\0b\n", 4)}));
}

TEST(TarReader, RoundsTimesDown) {
  auto time = [](std::string text) {
    FileEntry entry = only(TestTar().pax({{"mtime", text}}).add(member("f")));
    return std::pair(entry.mtime, entry.mtime_nsec);
  };
  EXPECT_EQ(time("12.3456789019"), std::pair(int64_t{12}, 345678901u));
  EXPECT_EQ(time("-0.25"), std::pair(int64_t{-1}, 750'000'000u));
  EXPECT_EQ(time("-3"), std::pair(int64_t{-3}, 0u));
  EXPECT_EQ(time("-1.9999999999"), std::pair(int64_t{-2}, 0u));
  expect_refused(TestTar().pax({{"mtime", "1e9"}}).add(member("f")).bytes(), Code::kCorrupt, "mtime");
}

TEST(TarReader, GlobalValuesHoldUntilOverridden) {
  TestTar tar;
  tar.pax({{"uid", "5"}, {"mtime", "9.5"}}, 'g').add(member("a")).pax({{"uid", "6"}}).add(member("b"));
  tar.pax({{"uid", ""}}, 'g').add(member("c"));
  Outcome outcome = read(tar.bytes());
  ASSERT_EQ(outcome.seen.size(), 3u);
  EXPECT_EQ(outcome.seen[0].entry.uid, 5u);
  EXPECT_EQ(outcome.seen[1].entry.uid, 6u);
  EXPECT_EQ(outcome.seen[1].entry.mtime_nsec, 500'000'000u);
  EXPECT_EQ(outcome.seen[2].entry.uid, 0u);
  expect_refused(TestTar().pax({{"path", "x"}}, 'g').add(member("a")).bytes(), Code::kUnsupported, "path");
}

TEST(TarReader, ReadsGnuLongNamesOnceEach) {
  std::string longer(200, 'n');
  std::string target(2000, 't');
  TestTar tar;
  tar.add(member("././@LongLink", 'L', longer + '\0')).add(member("././@LongLink", 'K', target + '\0'));
  tar.add(link("nnn", '2', "ttt")).add(member("next"));
  Outcome outcome = read(tar.bytes());
  ASSERT_EQ(outcome.seen.size(), 2u);
  EXPECT_EQ(outcome.seen[0].entry.path, longer);
  EXPECT_EQ(outcome.seen[0].entry.link_target, target);
  EXPECT_EQ(outcome.seen[1].entry.path, "next");
}

// Offset and length in the header's two number fields of a run.
std::string old_run(uint64_t offset, uint64_t length) {
  char text[25];
  std::snprintf(text, sizeof text, "%011llo", static_cast<unsigned long long>(offset));
  std::snprintf(text + 12, 13, "%011llo", static_cast<unsigned long long>(length));
  return std::string(text, 24);
}

TEST(TarReader, ReadsOldGnuSparseFilesWithExtensionBlocks) {
  TestMember file = member("sparse", 'S');
  file.magic = std::string("ustar  \0", 8);
  file.tail_fields = std::string(41, '\0');
  for (int i = 0; i < 4; ++i) file.tail_fields += old_run(i * 8192, 512);
  file.tail_fields += '\1' + old_run(1 << 20, 0).substr(0, 12);
  file.claimed_size = 4 * 512 + 512 + 100;
  std::string extension = old_run(5 * 8192, 512) + old_run(6 * 8192, 100) + old_run(1 << 20, 0);
  extension.resize(512);
  std::string data;
  for (char c : std::string("abcde")) data += std::string(512, c);
  data += std::string(100, 'f');
  TestTar tar;
  tar.add(file).raw(extension).raw(data).pad().add(member("next"));
  Outcome outcome = read(tar.bytes());
  ASSERT_TRUE(outcome.result) << outcome.result.error().what;
  ASSERT_EQ(outcome.seen.size(), 2u);
  const Seen& seen = outcome.seen[0];
  EXPECT_EQ(seen.entry.size, 1u << 20);
  EXPECT_EQ(seen.bytes, data);
  ASSERT_EQ(seen.data.segments.size(), 6u);
  EXPECT_EQ(seen.data.segments[0], (TarSegment{0, 1024, 512}));
  EXPECT_EQ(seen.data.segments[5], (TarSegment{6 * 8192, 1024 + 5 * 512, 100}));
}

TEST(TarReader, ReadsThePaxSparseForms) {
  std::string data = std::string(512, 'a') + std::string(10, 'b');
  auto check = [&](const TestTar& tar, uint64_t data_at) {
    Outcome outcome = read(tar.bytes());
    ASSERT_TRUE(outcome.result) << outcome.result.error().what;
    ASSERT_EQ(outcome.seen.size(), 2u);
    const Seen& seen = outcome.seen[0];
    EXPECT_EQ(seen.entry.path, "real");
    EXPECT_EQ(seen.entry.size, 100000u);
    EXPECT_EQ(seen.bytes, data);
    EXPECT_THAT(seen.data.segments, ElementsAre(TarSegment{4096, data_at, 512}, TarSegment{81920, data_at + 512, 10}));
  };
  TestTar v00;
  v00.pax({{"GNU.sparse.size", "100000"},
           {"GNU.sparse.numblocks", "2"},
           {"GNU.sparse.offset", "4096"},
           {"GNU.sparse.numbytes", "512"},
           {"GNU.sparse.offset", "81920"},
           {"GNU.sparse.numbytes", "10"}});
  check(v00.add(member("real", '0', data)).add(member("next")), 1536);
  TestTar v01;
  v01.pax({{"GNU.sparse.size", "100000"}, {"GNU.sparse.name", "real"}, {"GNU.sparse.map", "4096,512,81920,10"}});
  check(v01.add(member("GNUSparseFile.1/real", '0', data)).add(member("next")), 1536);
  TestTar v10;
  v10.pax({{"GNU.sparse.major", "1"},
           {"GNU.sparse.minor", "0"},
           {"GNU.sparse.name", "real"},
           {"GNU.sparse.realsize", "100000"}});
  std::string map = "3\n4096\n512\n81920\n10\n100000\n0\n";
  map.resize(512);
  check(v10.add(member("GNUSparseFile.1/real", '0', map + data)).add(member("next")), 2048);
}

TEST(TarReader, RefusesSparseMapsThatLie) {
  auto sparse = [](std::string map, std::string size, std::string data) {
    TestTar tar;
    tar.pax({{"GNU.sparse.size", size}, {"GNU.sparse.map", map}}).add(member("f", '0', data));
    expect_refused(tar.bytes(), Code::kCorrupt, "map");
  };
  sparse("0,10,5,10", "100", std::string(20, 'x'));   // overlap
  sparse("0,10,95,10", "100", std::string(20, 'x'));  // past the end
  sparse("0,10", "100", std::string(20, 'x'));        // data left over
  sparse("0,10,20,30", "100", std::string(20, 'x'));  // data missing
  sparse("0,9223372036854775807", "100", "x");        // overflow
  sparse("0,1,2", "100", "x");                        // odd
  TestTar huge;
  huge.pax({{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "100"}});
  std::string map = "999999999999\n";
  map.resize(512);
  expect_refused(huge.add(member("f", '0', map)).bytes(), Code::kUnsupported, "too many runs");
}

TEST(TarReader, TurnsWhiteoutsIntoWhatTheyHide) {
  TestTar tar;
  tar.add(member("a/.wh.gone")).add(member("a/.wh..wh..opq")).add(member(".wh..wh..opq")).add(member(".wh.x"));
  tar.add(member(".wh..wh.plnk", '5')).add(member(".wh..wh.plnk/1.2", '0', "data")).add(member(".wh..wh.aufs"));
  tar.add(link("to-aufs", '1', ".wh..wh.plnk/1.2")).add(member("kept"));
  Outcome outcome = read(tar.bytes());
  ASSERT_TRUE(outcome.result) << outcome.result.error().what;
  std::vector<std::pair<FileType, std::string>> seen;
  for (const Seen& one : outcome.seen) seen.emplace_back(one.entry.type, one.entry.path);
  EXPECT_THAT(seen, ElementsAre(std::pair(FileType::kWhiteout, "a/gone"), std::pair(FileType::kOpaque, "a"),
                                std::pair(FileType::kOpaque, ""), std::pair(FileType::kWhiteout, "x"),
                                std::pair(FileType::kRegular, "kept")));
  for (std::string name : {".wh.", "a/.wh..", "a/.wh..."}) {
    expect_refused(TestTar().add(member(name)).bytes(), Code::kCorrupt, "hides no name");
  }
}

TEST(TarReader, RefusesNamesThatCouldLeaveTheTree) {
  for (std::string name : {"../x", "a/../../x", "a/..", ".."}) {
    expect_refused(TestTar().add(member(name)).bytes(), Code::kCorrupt, name);
  }
  expect_refused(TestTar().add(link("l", '1', "a/../b")).bytes(), Code::kCorrupt, "a/../b");
  expect_refused(TestTar().pax({{"path", std::string("a\0b", 3)}}).add(member("x")).bytes(), Code::kCorrupt, "NUL");
  expect_refused(TestTar().add(link("/", '2', "t")).bytes(), Code::kCorrupt, "root");
  std::string component(256, 'c');
  expect_refused(TestTar().pax({{"path", component}}).add(member("x")).bytes(), Code::kUnsupported, "ccc");
  std::string deep;
  while (deep.size() <= 4096) deep += "d/";
  expect_refused(TestTar().pax({{"path", deep + "dd/"}}).add(member("x")).bytes(), Code::kUnsupported, "4096");
  EXPECT_EQ(only(TestTar().add(member("./", '5'))).path, "");
  EXPECT_EQ(only(TestTar().add(member("/abs/./x", '5'))).path, "abs/x");
}

TEST(TarReader, LinksAndDirectoriesHaveNoPayloadWhateverTheySay) {
  TestTar tar;
  for (char type : {'1', '2', '3', '5', '6'}) {
    TestMember one = link(std::string(1, type), type, "target");
    one.claimed_size = 12345;
    tar.add(one);
  }
  EXPECT_EQ(read(tar.end().bytes()).seen.size(), 5u);
}

TEST(TarReader, RefusesWhatItDoesNotKnow) {
  expect_refused(TestTar().add(member("f", 'M')).bytes(), Code::kUnsupported, "M");
  expect_refused(TestTar().add(member("f", 'S')).bytes(), Code::kUnsupported, "sparse");
  EXPECT_EQ(read(TestTar().add(member("label", 'V')).add(member("f")).bytes()).seen.size(), 1u);
}

TEST(TarReader, NoticesATruncatedArchiveAtEveryByte) {
  TestTar tar;
  tar.pax({{"uid", "7"}}).add(member("f", '0', std::string(700, 'x')));
  const std::string& whole = tar.bytes();
  for (size_t size = 1; size < whole.size(); ++size) {
    Outcome outcome = read(whole.substr(0, size));
    ASSERT_FALSE(outcome.result) << size;
    EXPECT_EQ(outcome.result.error().code, Code::kCorrupt);
  }
  EXPECT_THAT(read(whole.substr(0, whole.size() - 400)).result.error().what, HasSubstr("inside \"f\""));
  EXPECT_TRUE(read(whole).result);
  EXPECT_TRUE(read("").result);
}

TEST(TarReader, EndsAtTheEndMark) {
  EXPECT_EQ(read(TestTar().add(member("a")).end().raw("rubbish").bytes()).seen.size(), 1u);
  EXPECT_EQ(read(TestTar().add(member("a")).raw(std::string(512, '\0')).bytes()).seen.size(), 1u);
  expect_refused(TestTar().raw(std::string(512, '\0')).add(member("a")).bytes(), Code::kCorrupt, "zeros");
  expect_refused(TestTar().pax({{"uid", "1"}}).end().bytes(), Code::kCorrupt, "end mark");
  expect_refused(std::string(512, 'x'), Code::kCorrupt, "header");
}

TEST(TarReader, KeepsToItsLimits) {
  TestMember lying = member("x", 'x');
  lying.claimed_size = 1ll << 32;
  expect_refused(TestTar().add(lying).bytes(), Code::kUnsupported, "headers");
  TestTar many;
  for (int i = 0; i < 5; ++i) many.add(member("f"));
  EXPECT_FALSE(read(many.bytes(), SIZE_MAX, {.max_entries = 4}).result);
  // A pax header ahead of every one of many does not add up; many ahead of one do.
  TestTar headers;
  for (int i = 0; i < 2; ++i) headers.pax({{"comment", std::string(600'000, 'c')}});
  expect_refused(headers.add(member("f")).bytes(), Code::kUnsupported, "headers");
}

TEST(TarReader, RepeatsItsError) {
  Recorder recorder;
  TarReader reader(recorder);
  std::string bad(512, 'x');
  EXPECT_FALSE(reader.feed(as_bytes(bad)));
  EXPECT_FALSE(reader.feed(as_bytes(TestTar().add(member("f")).bytes())));
  EXPECT_FALSE(reader.finish());
  EXPECT_TRUE(recorder.seen.empty());
}

TEST(TarReader, MalformedPaxRecordsAreRefused) {
  for (std::string text : {"5 a=b", "999 path=x\n", "x path=x\n", "9 path=x", "0 a=b\n", "6 a=b\n\n", "7 =abc\n",
                           "18446744073709551615 a=b\n", "12 uid=-400\n"}) {
    TestTar tar;
    tar.add(member("pax", 'x', text)).add(member("f"));
    EXPECT_FALSE(read(tar.bytes()).result) << text;
  }
}

TEST(TarReader, GivesTheSameForAnyChunking) {
  TestTar tar;
  tar.pax({{"path", std::string(150, 'p')}, {"SCHILY.xattr.user.k", "v"}})
      .add(member("x", '0', std::string(5000, 'd')));
  tar.add(member("././@LongLink", 'L',
                 std::string(700, 'l').replace(200, 1, "/").replace(400, 1, "/").replace(600, 1, "/") + '\0'));
  tar.add(member("y", '0', "tail")).add(member("dir", '5')).add(link("s", '2', "t"));
  tar.pax({{"GNU.sparse.major", "1"},
           {"GNU.sparse.minor", "0"},
           {"GNU.sparse.name", "sp"},
           {"GNU.sparse.realsize", "99999"}});
  std::string map = "2\n0\n512\n8192\n1000\n";
  map.resize(512);
  tar.add(member("g", '0', map + std::string(1512, 's'))).end();
  Outcome whole = read(tar.bytes());
  ASSERT_TRUE(whole.result) << whole.result.error().what;
  ASSERT_EQ(whole.seen.size(), 5u);
  for (size_t chunk : {1, 2, 3, 7, 511, 512, 513, 1000, 4096}) {
    Outcome cut = read(tar.bytes(), chunk);
    ASSERT_TRUE(cut.result);
    EXPECT_EQ(cut.seen, whole.seen) << chunk;
  }
}

TEST(TarReader, SurvivesRandomDamage) {
  TestTar tar;
  tar.pax({{"path", "p"}, {"mtime", "1.5"}, {"GNU.sparse.size", "100"}, {"GNU.sparse.map", "0,5"}});
  tar.add(member("x", '0', "12345")).add(member("L", 'L', "name")).add(member("y")).end();
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = tar.bytes();
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    // Right checksums let the damage through to the parsers behind.
    for (size_t at = 0; at + 512 <= damaged.size(); at += 512) {
      if (damaged.compare(at + 257, 5, "ustar") != 0) continue;
      TestTar fixed;
      fixed.add_block(damaged.substr(at, 512));
      damaged.replace(at, 512, fixed.bytes());
    }
    read(damaged, 1 + random() % 600);
  }
}

}  // namespace
}  // namespace hydrant::image
