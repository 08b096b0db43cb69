#include "image/index/erofs_layer.h"

#include <gtest/gtest.h>

#include "image/erofs/erofs_fixture.h"
#include "image/index/index_fixture.h"
#include "image/index/layer_layout.h"
#include "image/zstd/zstd_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;

struct Chunked {
  Buffer stored;
  ErofsChunkIndex index;
};

Chunked chunked(Bytes image, bool compressed) {
  Chunked made;
  made.index.zstd = compressed;
  made.index.image_size = image.size();
  for (size_t at = 0; at < image.size(); at += 50'000) {
    const Bytes plain = image.subspan(at, std::min<size_t>(50'000, image.size() - at));
    const Buffer piece = compressed ? zstd(plain) : to_buffer(plain);
    made.index.chunks.push_back(
        {{made.stored.size(), made.stored.size() + piece.size()}, {at, at + plain.size()}, sha256(piece)});
    append(made.stored, piece);
  }
  return made;
}

TEST(ErofsLayer, ItsChunkIndexMakesTheDeviceThatStreamingMakes) {
  ErofsMaker maker;
  std::map<std::string, uint64_t> files;
  for (int i = 0; i < 20; ++i) files["file-" + std::to_string(i)] = maker.plain(mixture(40'000, uint32_t(i)));
  files["tail"] = maker.inlined(text(6000));
  const Buffer image = maker.image(maker.directory(files));
  auto built = build(image, expectation(image, image));
  ASSERT_TRUE(built) << built.error().what;
  for (bool compressed : {false, true}) {
    Chunked made = chunked(image, compressed);
    uint64_t fetched = 0;
    const ReadStored read = [&](ByteRange stored) -> Result<Buffer> {
      fetched += stored.size();
      return to_buffer(Bytes(made.stored).subspan(stored.begin, stored.size()));
    };
    const LayerExpectation expected{sha256(made.stored), made.stored.size(), {}, "application/vnd.erofs"};
    auto indexed = build_erofs_index(made.index, expected, read);
    ASSERT_TRUE(indexed) << indexed.error().what;
    EXPECT_LT(fetched, made.stored.size() / 2) << "inodes and directories alone";
    auto index = LayerIndex::load(indexed->index, expected);
    ASSERT_TRUE(index) << index.error().what;
    const LayerLayout layout(*index);
    ASSERT_EQ(layout.device_size(), built->device.size());
    for (uint64_t at = 0; at < layout.device_size(); at += 100'000) {
      const Fill fill = layout.plan({at, at + 1});
      Buffer out;
      auto done = layout.decode(fill, Bytes(made.stored).subspan(fill.stored.begin, fill.stored.size()),
                                [&](uint64_t, Bytes bytes) { return append(out, bytes), Result<>(); });
      ASSERT_TRUE(done) << done.error().what;
      EXPECT_EQ(out, to_buffer(Bytes(built->device).subspan(fill.device.begin, fill.device.size())));
    }
    made.stored[100] ^= std::byte{1};  // of the first chunk, with the superblock
    EXPECT_EQ(build_erofs_index(made.index, expected, read).error().code, Code::kCorrupt);
  }
}

}  // namespace
}  // namespace hydrant::image
