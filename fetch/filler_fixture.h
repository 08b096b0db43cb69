// A filler over an origin and a cache that are not there. Test support only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "fetch/fake_control.h"
#include "fetch/filler.h"
#include "image/index/identity_layout.h"
#include "proto/merkle.h"
#include "source/fake.h"

namespace hydrant::fetch {

using namespace std::chrono_literals;
using source::FakeAnswer;
using source::FakeBlob;

inline constexpr uint64_t kGranule = 64 << 10;

inline Buffer pattern(uint64_t size) {
  Buffer out(size);
  for (uint64_t i = 0; i < size; ++i) out[i] = std::byte((i * 2654435761u) >> 13);
  return out;
}

inline std::vector<Digest> leaves_of(const Buffer& content) {
  std::vector<Digest> leaves;
  for (uint64_t at = 0; at < content.size(); at += kGranule)
    leaves.push_back(proto::leaf_digest(Bytes(content).subspan(at, std::min(kGranule, content.size() - at))));
  return leaves;
}

class FakeOrigin final : public Origin {
 public:
  explicit FakeOrigin(const Buffer& content)
      : layout_(std::make_shared<image::IdentityLayout>(content.size(), kGranule, leaves_of(content))),
        blob_(std::make_shared<FakeBlob>(content)) {}
  // Before anything is read.
  void set_layout(std::shared_ptr<const image::Layout> layout) { layout_ = std::move(layout); }
  Result<std::shared_ptr<const image::Layout>> layout() override {
    if (broken_layouts > 0) {
      --broken_layouts;
      return fail(Code::kCorrupt, "the index is broken");
    }
    return layout_;
  }
  Result<std::shared_ptr<source::Blob>> blob(Deadline) override { return blob_; }
  void forget(const std::shared_ptr<source::Blob>& blob) override { forgotten += blob == blob_; }
  bool many_files() const override { return true; }
  FakeBlob& fake() { return *blob_; }
  std::atomic<unsigned> forgotten{0};
  unsigned broken_layouts = 0;

 private:
  std::shared_ptr<const image::Layout> layout_;
  std::shared_ptr<FakeBlob> blob_;
};

// Outcomes of reads, for tests that wait.
class Outcomes {
 public:
  Filler::Done next() {
    return [this](Result<> result) {
      std::lock_guard lock(mutex_);
      codes_.push_back(result ? Code::kOk : result.error().code);
      changed_.notify_all();
    };
  }
  std::vector<Code> wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, Deadline::after(20s).at(), [&] { return codes_.size() >= count; });
    return codes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Code> codes_;
};

inline std::vector<Code> all(size_t count, Code code) { return std::vector<Code>(count, code); }

class FillerTest : public testing::Test {
 protected:
  static FillOptions quick() {
    FillOptions options;
    options.first_backoff = 1ms;
    options.longest_backoff = 2ms;
    options.attach_deadline = 10s;
    options.fill_unit = kGranule;
    options.prefetch_unit = kGranule;
    options.of_many_files = {0, 0};
    options.shortest_run = 2 * kGranule;
    options.longest_ahead = 4 * kGranule;
    return options;
  }
  void start(unsigned workers, FillOptions options = quick(), uint64_t size = 32 * kGranule) {
    content_ = pattern(size);
    origin_ = std::make_shared<FakeOrigin>(content_);
    queue_ = std::make_unique<FillQueue>(workers, Duration(0));
    shop_ = std::make_unique<FillShop>(FillShop{*queue_, memory_, options, undemanded_ ? &*undemanded_ : nullptr});
    filler_ = Filler::create(*shop_, "object", handle_, origin_, counters_);
  }
  void TearDown() override {
    if (filler_) filler_->close();
    queue_.reset();
  }
  void read(uint64_t granule, uint64_t count = 1) {
    filler_->read({granule * kGranule, (granule + count) * kGranule}, outcomes_.next());
  }
  void expect_right(ByteRange range) {
    EXPECT_EQ(handle_->content(range), Buffer(content_.begin() + static_cast<ptrdiff_t>(range.begin),
                                              content_.begin() + static_cast<ptrdiff_t>(range.end)));
  }
  FakeBlob& blob() { return origin_->fake(); }
  bool wait_for_reads(size_t count) { return blob().wait_for_reads(count, Deadline::after(20s)); }

  Buffer content_;
  Outcomes outcomes_;
  std::shared_ptr<FakeHandle> handle_ = std::make_shared<FakeHandle>();
  std::shared_ptr<FakeOrigin> origin_;
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  MemoryBudget memory_{64 << 20};
  std::optional<RateBudget> undemanded_;
  std::unique_ptr<FillQueue> queue_;
  std::unique_ptr<FillShop> shop_;
  std::shared_ptr<Filler> filler_;
};

}  // namespace hydrant::fetch
