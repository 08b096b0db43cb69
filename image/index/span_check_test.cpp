#include "image/index/span_check.h"

#include <gtest/gtest.h>

#include "image/index/index_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;

Result<> check(const LayerIndexContent& content, Bytes stored, const Digest& diff_id, size_t step = 70'000) {
  HYDRANT_TRY(auto index, LayerIndex::load(encode_layer_index(content), {}));
  SpanCheck all(*index);
  for (size_t at = 0; at < stored.size(); at += step)
    HYDRANT_TRY_VOID(all.feed(stored.subspan(at, std::min(step, stored.size() - at))));
  return all.finish(diff_id);
}

TEST(SpanCheck, EverySpanIsEnteredAtItsOwnCheckpoint) {
  const Buffer plain = tar(many_files(7)), stored = gzip(plain, 6, 20'000);
  auto built = build(stored, expectation(stored, plain), {.span = 256 << 10});
  ASSERT_TRUE(built);
  const auto content = as_stored(**LayerIndex::load(built->layer.index, {}), stored);
  ASSERT_GT(content.checkpoints.size(), 10U);
  const Digest diff_id = sha256(plain);
  for (size_t step : {size_t(997), size_t(65'536), stored.size()})
    EXPECT_TRUE(check(content, stored, diff_id, step)) << step;
  EXPECT_FALSE(check(content, stored, sha256(stored)));

  // A window that is not what precedes: the stored bytes are right all the same. Some spans do not look into theirs.
  int tried = 0, found = 0;
  for (size_t i = 1; i < content.checkpoints.size(); i += 3) {
    auto lying = content;
    if (lying.windows[i].empty()) continue;
    Buffer window = *zstd_decompress(lying.windows[i], kWindowSize);
    for (auto& byte : window) byte ^= std::byte{1};
    lying.windows[i] = zstd_compress(window, 3);
    ++tried;
    found += !check(lying, stored, diff_id);
  }
  EXPECT_GT(found, tried / 2);
  auto lying = content;
  lying.checkpoints[4].bits ^= 1;
  EXPECT_FALSE(check(lying, stored, diff_id));
  lying = content;
  lying.checkpoints[4].plain_offset += 1;
  EXPECT_FALSE(check(lying, stored, diff_id));
  lying = content;
  lying.stored_digests[4] = diff_id;
  EXPECT_FALSE(check(lying, stored, diff_id));
}

}  // namespace
}  // namespace hydrant::image
