#include "image/index/decoded_layout.h"

#include <gtest/gtest.h>

#include "image/erofs/erofs_fixture.h"
#include "image/index/index_fixture.h"
#include "image/index/layer_layout.h"
#include "image/zstd/zstd_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;

Buffer image_with_packed_files(Buffer& data) {
  ErofsMaker maker;
  data = text(300'000);
  const auto cluster = maker.cluster(lz4(data));
  return maker.image(maker.directory({{"again", maker.packed({{cluster, 123'456, true}})},
                                      {"packed", maker.packed({{cluster, 300'000}})},
                                      {"plain", maker.plain(noise(10'000))}}));
}

TEST(DecodedLayout, AFillOfAnyGranuleMakesTheDeviceOnceMore) {
  Buffer data;
  const Buffer image = image_with_packed_files(data);
  for (const Buffer& stored : {image, gzip(image), zstd(image)}) {
    auto built = build(stored, expectation(stored, image), {.span = 256 << 10, .granule = 64 << 10});
    ASSERT_TRUE(built) << built.error().what;
    EXPECT_FALSE(built->layer.lazy);
    auto index = LayerIndex::load(built->layer.index, expectation(stored, image));
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_FALSE((*index)->lazy());
    EXPECT_EQ((*index)->decoded(), (Decoded{423'456, "LZ4"}));
    auto files = (*index)->files();
    ASSERT_TRUE(files) << files.error().what;
    for (const auto& file : *files) {
      if (file.path != "packed") continue;
      ASSERT_EQ(file.data.size(), 1U);
      EXPECT_TRUE(std::equal(data.begin(), data.end(), built->device.begin() + ptrdiff_t(file.data[0].device_offset)));
    }
    const auto layout = make_layout(*index);
    const Fill fill = layout->plan({200'000, 200'001});
    EXPECT_EQ(fill.device, (ByteRange{0, built->device.size()}));
    EXPECT_EQ(fill.stored, (ByteRange{0, stored.size()}));
    Buffer out;
    auto done = layout->decode(fill, stored, [&](uint64_t offset, Bytes bytes) {
      EXPECT_EQ(offset, out.size());
      append(out, bytes);
      return Result<>();
    });
    ASSERT_TRUE(done) << done.error().what;
    EXPECT_TRUE(out == built->device);
  }
}

TEST(DecodedLayout, ADamagedLayerYieldsNothing) {
  Buffer data;
  const Buffer image = image_with_packed_files(data);
  auto built = build(image, expectation(image, image));
  ASSERT_TRUE(built) << built.error().what;
  auto index = LayerIndex::load(built->layer.index, {});
  ASSERT_TRUE(index) << index.error().what;
  const auto layout = make_layout(*index);
  const DeviceSink never = [](uint64_t, Bytes) -> Result<> {
    ADD_FAILURE() << "unproven bytes";
    return {};
  };
  Buffer bad = image;
  bad[bad.size() - 100] ^= std::byte{1};
  Buffer archive = tar({{"other", noise(2 << 20)}});
  archive.resize(image.size());
  for (const Buffer& stored : {bad, archive})
    EXPECT_EQ(layout->decode(layout->plan({0, 1}), stored, never).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::image
