#include "fetch/request_loop.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "fetch/fake_control.h"
#include "image/index/identity_layout.h"
#include "proto/object_id.h"
#include "source/fake.h"

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kSize = 256 << 10;

class OneBlobOrigin final : public Origin {
 public:
  explicit OneBlobOrigin(std::shared_ptr<source::FakeBlob> blob) : blob_(std::move(blob)) {}
  Result<std::shared_ptr<const image::Layout>> layout() override {
    return std::make_shared<image::IdentityLayout>(kSize, 64 << 10);
  }
  Result<std::shared_ptr<source::Blob>> blob(Deadline) override { return blob_; }
  void forget(const std::shared_ptr<source::Blob>&) override {}

 private:
  std::shared_ptr<source::FakeBlob> blob_;
};

class RequestLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "loopXXXXXX";
    directory_ = ::mkdtemp(name.data());
    auto opened = Catalogue::open(directory_ + "/c.db");
    ASSERT_TRUE(opened) << opened.error().what;
    catalogue_ = *std::move(opened);
    ObjectRow row;
    row.id = "known";
    row.kind = ObjectKind::kFile;
    row.size = kSize;
    ASSERT_TRUE(catalogue_->put_object(row));
    objects_ = std::make_unique<Objects>(shop_, *catalogue_, [this](const ObjectRow&) {
      ++origins_made_;
      return std::make_shared<OneBlobOrigin>(blob_);
    });
    RequestLoopOptions options;
    options.first_backoff = 1ms;
    options.longest_backoff = 5ms;
    loop_ = std::make_unique<RequestLoop>([this](Deadline) { return connect(); }, *objects_, options);
  }
  void TearDown() override {
    loop_.reset();
    objects_.reset();
    queue_.stop();
    std::filesystem::remove_all(directory_);
  }

  // Hands the loop a new control whose far end the test holds.
  Result<std::unique_ptr<Control>> connect() {
    std::lock_guard lock(mutex_);
    if (refuse_ > 0) {
      --refuse_;
      return fail(Code::kUnreachable, "hydrantd is away");
    }
    class Shared final : public Control {
     public:
      explicit Shared(std::shared_ptr<FakeControl> fake) : fake_(std::move(fake)) {}
      Result<Request> next(Deadline deadline) override { return fake_->next(deadline); }
      int64_t write(std::string_view command) override { return fake_->write(command); }
      void stop() override { fake_->stop(); }

     private:
      std::shared_ptr<FakeControl> fake_;
    };
    auto fake = std::make_shared<FakeControl>();
    controls_.push_back(fake);
    connected_.notify_all();
    return std::make_unique<Shared>(fake);
  }
  std::shared_ptr<FakeControl> control(size_t number) {
    std::unique_lock lock(mutex_);
    connected_.wait_until(lock, soon().at(), [&] { return controls_.size() > number; });
    return controls_.at(number);
  }
  static Deadline soon() { return Deadline::after(20s); }
  OpenRequest open(uint32_t msg_id, uint32_t object_id, const std::string& id,
                   std::shared_ptr<ObjectHandle> handle = std::make_shared<FakeHandle>()) {
    return {msg_id, object_id, "erofs,hydrant", id, std::move(handle)};
  }

  std::string directory_;
  std::shared_ptr<source::FakeBlob> blob_ = std::make_shared<source::FakeBlob>(Buffer(kSize, std::byte{7}));
  std::unique_ptr<Catalogue> catalogue_;
  FillQueue queue_{2};
  MemoryBudget memory_{1 << 20};
  FillShop shop_{queue_, memory_, {}};
  std::atomic<int> origins_made_{0};
  std::unique_ptr<Objects> objects_;
  std::mutex mutex_;
  std::condition_variable connected_;
  std::vector<std::shared_ptr<FakeControl>> controls_;
  unsigned refuse_ = 0;
  std::unique_ptr<RequestLoop> loop_;
};

TEST_F(RequestLoopTest, RestoresThenAnswersOpensFromTheCatalogueAlone) {
  auto one = control(0);
  one->push(open(3, 1, "known"));
  one->push(open(4, 2, "unknown"));
  ASSERT_TRUE(one->wait_for_commands(3, soon()));
  EXPECT_EQ(one->commands(), (std::vector<std::string>{"restore", "copen 3,262144", "copen 4,-2"}));
  EXPECT_TRUE(blob_->reads().empty());
}

TEST_F(RequestLoopTest, FillsThenCompletesARead) {
  auto handle = std::make_shared<FakeHandle>();
  control(0)->push(open(1, 1, "known", handle));
  control(0)->push(ReadRequest{9, 1, {4096, 8192}});
  ASSERT_TRUE(handle->wait_for_completions(1, soon()));
  EXPECT_EQ(handle->completed(), std::vector<uint32_t>{9});
  EXPECT_EQ(handle->content({4096, 8192}), Buffer(4096, std::byte{7}));
}

TEST_F(RequestLoopTest, AReadThatFailsIsCompletedWithoutData) {
  source::FakeAnswer denied{.kind = source::FakeAnswer::Kind::kFail};
  denied.error = {.code = Code::kDenied, .what = "403"};
  blob_->answer(denied, 1);
  auto handle = std::make_shared<FakeHandle>();
  control(0)->push(open(1, 1, "known", handle));
  control(0)->push(ReadRequest{9, 1, {0, 4096}});
  ASSERT_TRUE(handle->wait_for_completions(1, soon()));
  EXPECT_EQ(handle->writes(), 0U);
  EXPECT_EQ(objects_->counters("known")->failures().at("denied"), 1U);
}

TEST_F(RequestLoopTest, ALostChannelDropsHandlesLeavesReadersPendingAndIsJoinedAgain) {
  auto handle = std::make_shared<FakeHandle>();
  std::weak_ptr<FakeHandle> seen = handle;
  blob_->hold();
  control(0)->push(open(1, 1, "known", handle));
  control(0)->push(ReadRequest{9, 1, {0, 4096}});
  ASSERT_TRUE(blob_->wait_for_reads(1, soon()));
  {
    std::lock_guard lock(mutex_);
    refuse_ = 3;
  }
  control(0)->lose();
  auto next = control(1);
  ASSERT_TRUE(next->wait_for_commands(1, soon()));
  EXPECT_EQ(next->commands(), std::vector<std::string>{"restore"});
  EXPECT_TRUE(handle->completed().empty()) << "the cache sends the read again";
  blob_->release();

  auto reopened = std::make_shared<FakeHandle>();
  next->push(open(1, 7, "known", reopened));
  next->push(ReadRequest{9, 7, {0, 4096}});
  EXPECT_TRUE(reopened->wait_for_completions(1, soon()));
  EXPECT_EQ(handle->writes(), 0U);
}

TEST_F(RequestLoopTest, AHydrantdThatDropsUsAtOnceIsAskedLessAndLess) {
  loop_.reset();
  for (bool refuse_restore : {true, false}) {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Instant> times;
    RequestLoopOptions options;
    options.first_backoff = 1ms;
    options.longest_backoff = 60s;
    RequestLoop loop(
        [&](Deadline) -> Result<std::unique_ptr<Control>> {
          auto control = std::make_unique<FakeControl>();
          refuse_restore ? control->lose() : control->stop();
          std::lock_guard lock(mutex);
          times.push_back(Clock::system().now());
          changed.notify_all();
          return control;
        },
        *objects_, options);
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_until(lock, soon().at(), [&] { return times.size() >= 9; }));
    EXPECT_GE(times[8] - times[7], 128ms);
    EXPECT_GE(times[8] - times[0], 255ms) << "1 + 2 + 4 + ... + 128";
  }
}

TEST_F(RequestLoopTest, AfterAHydrantdThatServedTheNextOneIsAskedAtOnce) {
  loop_.reset();
  std::mutex mutex;
  std::condition_variable changed;
  int connects = 0;
  RequestLoopOptions options;
  options.first_backoff = 1h;
  options.longest_backoff = 0s;  // whatever stood, stood for that long
  RequestLoop loop(
      [&](Deadline) -> Result<std::unique_ptr<Control>> {
        auto control = std::make_unique<FakeControl>();
        control->stop();
        std::lock_guard lock(mutex);
        ++connects;
        changed.notify_all();
        return control;
      },
      *objects_, options);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_until(lock, soon().at(), [&] { return connects >= 2; }));
}

TEST_F(RequestLoopTest, CloseDropsTheHandle) {
  auto handle = std::make_shared<FakeHandle>();
  std::weak_ptr<FakeHandle> seen = handle;
  control(0)->push(open(1, 1, "known", std::move(handle)));
  control(0)->push(CloseRequest{2, 1});
  control(0)->push(open(3, 2, "unknown"));  // answered after the close
  ASSERT_TRUE(control(0)->wait_for_commands(3, soon()));
  EXPECT_TRUE(seen.expired());
}

TEST_F(RequestLoopTest, AnIngestedObjectGetsTheNominalSizeAndItsHandleGoesToTheIngest) {
  auto ingest = objects_->expect_ingest("new");
  ASSERT_TRUE(ingest);
  EXPECT_EQ(objects_->expect_ingest("new").error().code, Code::kBusy);
  auto handle = std::make_shared<FakeHandle>();
  std::weak_ptr<FakeHandle> seen = handle;
  control(0)->push(open(1, 1, "new", std::move(handle)));
  auto got = (*ingest)->handle(soon());
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, seen.lock());
  ASSERT_TRUE(control(0)->wait_for_commands(2, soon()));
  EXPECT_EQ(control(0)->commands()[1], "copen 1," + std::to_string(proto::kNominalSize));
  control(0)->push(open(2, 2, "unknown"));  // answered when the loop has let go of the request before it
  ASSERT_TRUE(control(0)->wait_for_commands(3, soon()));
  got->reset();
  ingest->reset();
  EXPECT_TRUE(seen.expired()) << "the handle closes with the ingest";
}

}  // namespace
}  // namespace hydrant::fetch
