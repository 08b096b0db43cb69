// What is left of a filler whose object was closed while work of its waited in the queue.
#include <gtest/gtest.h>

#include <future>

#include "fetch/fake_control.h"
#include "fetch/filler.h"
#include "image/index/identity_layout.h"
#include "source/fake.h"

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

class OneFile final : public Origin {
 public:
  Result<std::shared_ptr<const image::Layout>> layout() override {
    return std::make_shared<image::IdentityLayout>(1 << 20, 64 << 10);
  }
  Result<std::shared_ptr<source::Blob>> blob(Deadline) override {
    return std::make_shared<source::FakeBlob>(Buffer(1 << 20));
  }
  void forget(const std::shared_ptr<source::Blob>&) override {}
};

TEST(FillerClose, WorkThatWaitsForQuietHoldsNoFiller) {
  auto origin = std::make_shared<OneFile>();
  MemoryBudget memory(8 << 20);
  FillQueue queue(2, 24h);
  const FillShop shop{queue, memory, {}};
  auto filler = Filler::create(shop, "object", std::make_shared<FakeHandle>(), origin, std::make_shared<Counters>());
  std::promise<bool> read;
  filler->read({0, 4096}, [&](Result<> result) { read.set_value(result.has_value()); });
  ASSERT_TRUE(read.get_future().get());
  filler->complete([] {});
  ASSERT_EQ(queue.queued(), 1u) << "somebody has demanded something today";
  filler->close();
  std::weak_ptr<OneFile> watched = origin;
  origin.reset();
  filler.reset();
  // The worker that answered the read may hold it for a moment more.
  for (const Deadline soon = Deadline::after(20s); !watched.expired() && !soon.passed();) std::this_thread::yield();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace hydrant::fetch
