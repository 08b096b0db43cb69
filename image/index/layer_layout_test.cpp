#include "image/index/layer_layout.h"

#include <gtest/gtest.h>

#include <numeric>

#include "image/index/identity_layout.h"
#include "image/index/index_fixture.h"
#include "image/zstd/zstd_fixture.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

using namespace fixture;

// What decode hands out, checked against the device as it comes.
struct Receiver {
  const Buffer& device;
  ByteRange got{0, 0};
  uint64_t wrong = 0;

  DeviceSink sink() {
    return [this](uint64_t offset, Bytes bytes) -> Result<> {
      if (got.empty()) got = {offset, offset};
      if (offset != got.end || !std::equal(bytes.begin(), bytes.end(), device.begin() + ptrdiff_t(offset))) ++wrong;
      got.end = offset + bytes.size();
      return {};
    };
  }
};

void expect_round_trips(const Layout& layout, Bytes stored, const Buffer& device, int rounds) {
  std::mt19937_64 random(11);
  ASSERT_EQ(layout.device_size(), device.size());
  for (int round = 0; round < rounds; ++round) {
    const uint64_t begin = random() % device.size();
    const uint64_t size = 1 + random() % std::min<uint64_t>(device.size() - begin, round % 5 ? 300'000 : 6'000'000);
    const ByteRange wanted{begin, begin + size};
    const Fill fill = layout.plan(wanted);
    ASSERT_TRUE(fill.device.contains(wanted));
    ASSERT_EQ(fill.device.begin % layout.granule(), 0u);
    ASSERT_TRUE(fill.device.end % layout.granule() == 0 || fill.device.end == device.size());
    ASSERT_LE(fill.stored.end, stored.size());
    Receiver receiver{device};
    auto done = layout.decode(fill, stored.subspan(fill.stored.begin, fill.stored.size()), receiver.sink());
    ASSERT_TRUE(done) << done.error().what;
    EXPECT_EQ(receiver.got, fill.device);
    EXPECT_EQ(receiver.wrong, 0u);
  }
}

TEST(LayerLayout, AnyRangeOfTheDeviceComesBackAsTheBuilderMadeIt) {
  const Buffer plain = tar(many_files(4));
  std::vector<Buffer> members;
  for (size_t at = 0; at < plain.size(); at += 100'000)
    members.push_back(gzip(Bytes(plain).subspan(at, std::min<size_t>(100'000, plain.size() - at))));
  for (const Buffer& stored :
       {gzip(plain), gzip(plain, 1, 10'000), gzip(plain, 0), joined(members), zstd(plain, 90'000), plain}) {
    for (uint32_t granule : {64 << 10, 256 << 10, 1 << 20}) {
      auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = granule});
      ASSERT_TRUE(built) << built.error().what;
      auto index = LayerIndex::load(built->layer.index, expectation(stored, plain));
      ASSERT_TRUE(index) << index.error().what;
      expect_round_trips(LayerLayout(*index), stored, built->device, 60);
    }
  }
}

TEST(LayerLayout, SpansProvenAsTheyAreStoredMakeTheSameDevice) {
  const Buffer plain = tar(many_files(4));
  for (const Buffer& stored : {gzip(plain), gzip(plain, 1, 10'000), zstd(plain, 90'000), plain}) {
    auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = 64 << 10});
    ASSERT_TRUE(built) << built.error().what;
    const auto content = as_stored(**LayerIndex::load(built->layer.index, {}), stored);
    auto index = LayerIndex::load(encode_layer_index(content), {});
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_EQ((*index)->stored_digests(), content.stored_digests);
    EXPECT_TRUE((*index)->leaves().empty());
    const LayerLayout layout(*index);
    expect_round_trips(layout, stored, built->device, 60);
    EXPECT_GE(layout.decoder_memory(), (*index)->widest_span());
    expect_round_trips(LayerLayout(*index, std::make_shared<Fringes>(8 << 20)), stored, built->device, 60);

    // Whatever is changed, wherever it is cut: nothing of the span that holds it comes out.
    std::mt19937_64 random(3);
    for (int round = 0; round < 100; ++round) {
      const Fill fill = layout.plan({random() % built->device.size(), built->device.size()});
      Buffer bad = to_buffer(Bytes(stored).subspan(fill.stored.begin, fill.stored.size()));
      bad[random() % bad.size()] ^= std::byte(1 << random() % 8);
      Receiver receiver{built->device};
      auto decoder = layout.decoder(fill, receiver.sink());
      Result<> done;
      for (size_t at = 0; at < bad.size() && done;) {
        const size_t step = std::min<size_t>(1 + random() % 300'000, bad.size() - at);
        done = decoder->feed(Bytes(bad).subspan(at, step));
        at += step;
      }
      ASSERT_FALSE(done);
      EXPECT_EQ(done.error().code, Code::kCorrupt);
      EXPECT_EQ(receiver.wrong, 0u);
    }
  }
}

TEST(LayerLayout, AFirstSpanMayBeginBehindTheGzipHeader) {
  const Buffer plain = tar(many_files(5)), stored = gzip(plain);
  auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = 64 << 10});
  ASSERT_TRUE(built);
  auto content = as_stored(**LayerIndex::load(built->layer.index, {}), stored);
  content.checkpoints[0] = {10, 0, 0, false};
  content.stored_digests[0] = sha256(Bytes(stored).subspan(10, content.checkpoints[1].stored_offset - 10));
  auto index = LayerIndex::load(encode_layer_index(content), {});
  ASSERT_TRUE(index) << index.error().what;
  expect_round_trips(LayerLayout(*index), stored, built->device, 40);
}

TEST(LayerLayout, HandsOutTheNeighboursThatASpanCompletes) {
  const Buffer plain = tar({{"large", text(8 << 20)}}), stored = gzip(plain);
  auto built = build(stored, expectation(stored, plain), {.span = 1 << 20, .granule = 64 << 10});
  ASSERT_TRUE(built);
  LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
  const Fill fill = layout.plan({4 << 20, (4 << 20) + 1});
  EXPECT_GE(fill.device.size(), 900u << 10);
}

TEST(LayerLayout, ChangedStoredBytesNeverReachTheSinkWrong) {
  const Buffer plain = tar(many_files(6));
  for (const Buffer& stored : {gzip(plain, 6, 20'000), gzip(plain, 0), zstd(plain, 100'000), plain}) {
    auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = 64 << 10});
    ASSERT_TRUE(built);
    LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
    std::mt19937_64 random(3);
    int refused = 0;
    for (int round = 0; round < 300; ++round) {
      const uint64_t begin = random() % built->device.size();
      const Fill fill = layout.plan({begin, begin + 1});
      Buffer part = to_buffer(Bytes(stored).subspan(fill.stored.begin, fill.stored.size()));
      part[random() % part.size()] ^= std::byte(1 << random() % 8);
      Receiver receiver{built->device};
      auto done = layout.decode(fill, part, receiver.sink());
      EXPECT_EQ(receiver.wrong, 0u);
      EXPECT_TRUE(done || done.error().code == Code::kCorrupt);
      refused += !done;
    }
    EXPECT_GT(refused, 200);  // the others hit padding, headers of files, or bytes before the range
  }
}

// Reads the device granule by granule in a random order, as `decode` makes each available; returns the stored bytes
// that took.
template <typename Decode>
uint64_t read_at_random(const LayerLayout& layout, Decode decode) {
  std::vector<bool> present((layout.device_size() + layout.granule() - 1) / layout.granule());
  std::vector<uint64_t> order(present.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(5));
  uint64_t fetched = 0;
  for (uint64_t granule : order) {
    if (present[granule]) continue;
    const uint64_t begin = granule * layout.granule();
    const Fill fill = layout.plan({begin, begin + 1});
    EXPECT_TRUE(fill.device.contains({begin, begin + 1}));
    fetched += fill.stored.size();
    decode(fill);
    for (uint64_t at = fill.device.begin; at < fill.device.end; at += layout.granule())
      present[at / layout.granule()] = true;
  }
  return fetched;
}

TEST(LayerLayout, WithFringesNoSpanIsFetchedTwice) {
  const Buffer plain = tar(many_files(6));
  for (const Buffer& stored : {gzip(plain, 6, 20'000), gzip(plain, 0), zstd(plain, 50'000)})
    for (uint32_t granule : {64 << 10, 128 << 10}) {
      auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = granule});
      ASSERT_TRUE(built);
      auto index = *LayerIndex::load(built->layer.index, {});
      auto kept = std::make_shared<Fringes>(64 << 20);
      auto read_all = [&](const LayerLayout& layout) {
        return read_at_random(layout, [&](const Fill& fill) {
          Receiver receiver{built->device};
          auto done =
              layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()), receiver.sink());
          EXPECT_TRUE(done) << done.error().what;
          EXPECT_EQ(receiver.got, fill.device);
          EXPECT_EQ(receiver.wrong, 0u);
        });
      };
      // Spans that meet inside a byte share it.
      EXPECT_LE(read_all(LayerLayout(index, kept)), stored.size() + index->span_count());
      EXPECT_GT(read_all(LayerLayout(index)), stored.size() * 11 / 10);
      EXPECT_EQ(kept->bytes(), 0u) << "they go with their layout";
    }
}

TEST(LayerLayout, PiecesOfARunFetchLittleTwiceWithoutKnowingOfEachOther) {
  const Buffer plain = tar(many_files(6));
  for (const Buffer& stored : {gzip(plain, 6, 20'000), gzip(plain, 0)}) {
    auto built = build(stored, expectation(stored, plain), {.span = 1 << 20, .granule = 64 << 10});
    ASSERT_TRUE(built);
    const LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
    auto read_all = [&](auto piece_of) {
      uint64_t fetched = 0;
      for (uint64_t at = 0; at < layout.device_size();) {
        const ByteRange wanted{at, std::min(at + 1'200'000, layout.device_size())};
        const auto [end, fill] = piece_of(wanted);
        EXPECT_TRUE(fill.device.contains({at, end}));
        Receiver receiver{built->device};
        auto done = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()), receiver.sink());
        EXPECT_TRUE(done) << done.error().what;
        EXPECT_EQ(receiver.got, fill.device);
        EXPECT_EQ(receiver.wrong, 0u);
        fetched += fill.stored.size();
        at = end;
      }
      return fetched;
    };
    EXPECT_LE(read_all([&](ByteRange wanted) {
                const uint64_t end = layout.piece_end(wanted);
                return std::pair(end, layout.plan_piece({wanted.begin, end}));
              }),
              stored.size() * 110 / 100);
    EXPECT_GT(read_all([&](ByteRange wanted) {
                const Fill fill = layout.plan(wanted);
                return std::pair(fill.device.end, fill);
              }),
              stored.size() * 14 / 10);
  }
}

TEST(LayerLayout, APieceOfABloatedStreamIsTooShortAndAWholeFillOfItIsNot) {
  Buffer noise(1 << 20);
  std::mt19937 random(5);
  for (auto& byte : noise) byte = std::byte(random());
  // Small files take a block of the device and less of the tar: the border of the first spans is in a granule's middle.
  std::vector<TarFile> files(8, {"small", Buffer(1)});
  files.push_back({"noise", noise});
  const Buffer plain = tar(files);
  const Buffer stored = gzip(plain, 1, 10, Z_FULL_FLUSH);
  ASSERT_GT(stored.size(), plain.size() * 3 / 2);
  auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = 64 << 10});
  ASSERT_TRUE(built);
  const LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
  const ByteRange piece{0, layout.piece_end({0, 192 << 10})};
  auto decode = [&](const Fill& fill) {
    Receiver receiver{built->device};
    auto done = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()), receiver.sink());
    EXPECT_EQ(receiver.wrong, 0u);
    return done ? Code::kOk : done.error().code;
  };
  EXPECT_EQ(decode(layout.plan_piece(piece)), Code::kCorrupt);
  EXPECT_EQ(decode(layout.plan(piece)), Code::kOk);
}

TEST(LayerLayout, AWrongFringeCostsAnotherFetchAndNoMore) {
  const Buffer plain = tar(many_files(6));
  int damaged_fringes = 0;
  for (const Buffer& stored : {gzip(plain, 0), zstd(plain, 50'000)}) {
    auto built = build(stored, expectation(stored, plain), {.span = 256 << 10, .granule = 64 << 10});
    ASSERT_TRUE(built);
    LayerLayout layout(*LayerIndex::load(built->layer.index, {}), std::make_shared<Fringes>(64 << 20));
    std::mt19937_64 random(3);
    auto decode = [&](const Fill& fill, bool damaged) {
      Buffer part = to_buffer(Bytes(stored).subspan(fill.stored.begin, fill.stored.size()));
      if (damaged) part[random() % part.size()] ^= std::byte{1};
      Receiver receiver{built->device};
      auto done = layout.decode(fill, part, receiver.sink());
      EXPECT_EQ(receiver.wrong, 0u);
      EXPECT_TRUE(done || done.error().code == Code::kCorrupt);
      return done.has_value();
    };
    read_at_random(layout, [&](const Fill& fill) {
      const bool damaged = random() % 2;
      if (decode(fill, damaged)) return;
      damaged_fringes += !damaged;
      EXPECT_TRUE(decode(layout.plan(fill.device), /*damaged=*/false));
    });
  }
  EXPECT_GT(damaged_fringes, 0) << "stored blocks of deflate carry a changed byte through";
}

TEST(Fringes, KeepTheLatestWithinABudget) {
  Fringes fringes(400);
  const int layouts[2] = {};
  auto key = [&](uint64_t granule, int layout = 0) {
    return Fringes::Key{&layouts[layout], granule, Fringes::Side::kHead};
  };
  for (uint64_t granule = 0; granule < 5; ++granule) fringes.keep(key(granule, granule % 2), {granule, Buffer(100)});
  EXPECT_EQ(fringes.bytes(), 400u);
  EXPECT_FALSE(fringes.find(key(0)));
  ASSERT_TRUE(fringes.find(key(4)));
  EXPECT_EQ(fringes.find(key(4))->plain(), (ByteRange{4, 104}));
  fringes.keep(key(4), {7, Buffer(50)});
  EXPECT_EQ(fringes.bytes(), 350u);
  EXPECT_EQ(fringes.find(key(4))->plain_offset, 7u);
  fringes.keep(key(9), {0, Buffer(101)});  // more than a quarter
  EXPECT_FALSE(fringes.find(key(9)));
  fringes.forget(key(4));
  EXPECT_FALSE(fringes.find(key(4)));
  fringes.forget_layout(&layouts[1]);
  EXPECT_FALSE(fringes.find(key(1, 1)) || fringes.find(key(3, 1)));
  EXPECT_TRUE(fringes.find(key(2)));
  EXPECT_EQ(fringes.bytes(), 100u);
}

TEST(LayerLayout, ShortAnswersAreCorrupt) {
  const Buffer plain = tar(many_files()), stored = gzip(plain);
  auto built = build(stored, expectation(stored, plain));
  LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
  const Fill fill = layout.plan({0, 4096});
  auto done = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size() - 1),
                            [](uint64_t, Bytes) { return Result<>(); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kCorrupt);
}

TEST(LayerLayout, TheSinksErrorEndsTheCall) {
  const Buffer plain = tar(many_files()), stored = gzip(plain);
  auto built = build(stored, expectation(stored, plain));
  LayerLayout layout(*LayerIndex::load(built->layer.index, {}));
  const Fill fill = layout.plan({0, layout.device_size()});
  int calls = 0;
  auto done = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()),
                            [&](uint64_t, Bytes) -> Result<> { return ++calls, fail(Code::kNoSpace, "full"); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kNoSpace);
  EXPECT_EQ(calls, 1);
}

TEST(IdentityLayout, IsTheObjectPaddedToABlock) {
  for (size_t size : {size_t(1), size_t(4096), size_t(200'001), size_t(1 << 20)}) {
    const Buffer object = noise(size);
    Buffer device = object;
    device.resize(round_up(size, 4096));
    std::vector<Digest> leaves;
    for (size_t at = 0; at < device.size(); at += 64 << 10)
      leaves.push_back(proto::leaf_digest(Bytes(device).subspan(at, std::min<size_t>(64 << 10, device.size() - at))));
    expect_round_trips(IdentityLayout(size, 64 << 10), object, device, 20);
    IdentityLayout proven(size, 64 << 10, leaves);
    expect_round_trips(proven, object, device, 20);

    Buffer bad = object;
    bad.back() ^= std::byte{1};
    const Fill fill = proven.plan({0, device.size()});
    Receiver receiver{device};
    auto done = proven.decode(fill, bad, receiver.sink());
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::kCorrupt);
    EXPECT_EQ(receiver.wrong, 0u);
  }
}

}  // namespace
}  // namespace hydrant::image
