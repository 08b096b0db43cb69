#include "cachefiles/trace.h"

#include "base/log.h"
#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

class Trace : public EngineTest {
 protected:
  void TearDown() override {
    EXPECT_TRUE(trace::select("none"));
    trace::set_debug_mask(0);
    EngineTest::TearDown();
  }
  // What one object's life writes.
  std::string life() {
    ::testing::internal::CaptureStderr();
    BO();
    auto o = opened("key" + std::to_string(lives_++), 8192);
    auto data = C(*o.cookie, 0, 4096);
    auto read = next();
    handle(o.fd).pwrite(blocks(4096), 0);
    cr(o.fd, read.msg_id);
    data->wait();
    read_back(*o.cookie, 0, 4096);
    auto gone = rel(o.cookie);
    next();
    gone->wait();
    forget(o.cookie);
    stop();
    return ::testing::internal::GetCapturedStderr();
  }

 private:
  int lives_ = 0;
};

TEST_F(Trace, EveryStepOfALifeHasItsEvent) {
  ASSERT_TRUE(trace::select("all"));
  std::string text = life();
  for (const char* point :
       {"ref object=", "mkdir name=", "lookup object=", "tmpfile object=", "mark_active object=", "link object=",
        "prep_read object=", "read inode=", "mark_inactive object=", "ondemand_open object=", "ondemand_copen object=",
        "ondemand_read object=", "ondemand_fd_write object=", "ondemand_cread object=", "ondemand_close object=",
        "ondemand_fd_release object=", "reason=found-hole", "verdict=read"})
    EXPECT_NE(text.find(point), std::string::npos) << point;
  EXPECT_EQ(text.find("trace.enter"), std::string::npos);
}

TEST_F(Trace, PointsAreChosenByNameAndGroup) {
  ASSERT_TRUE(trace::select("ondemand,link"));
  std::string text = life();
  EXPECT_NE(text.find("trace.ondemand_read"), std::string::npos);
  EXPECT_NE(text.find("trace.link"), std::string::npos);
  EXPECT_EQ(text.find("trace.lookup"), std::string::npos);
  ASSERT_TRUE(trace::select("read"));
  EXPECT_EQ(trace::selected(), "read");
  EXPECT_FALSE(trace::select("read,nonsense"));
  EXPECT_EQ(trace::selected(), "read");
  ASSERT_TRUE(trace::select(""));
  EXPECT_EQ(trace::selected(), "none");
}

TEST_F(Trace, TheDebugMaskSwitchesThemToo) {
  ASSERT_EQ(O(), 0);
  ASSERT_EQ(W("debug 3"), 7);
  channel.reset();
  settle();
  std::string text = life();
  EXPECT_NE(text.find("trace.enter step=command"), std::string::npos);
  EXPECT_NE(text.find("trace.leave step=commit"), std::string::npos);
  EXPECT_EQ(text.find("trace.lookup"), std::string::npos);
  ASSERT_EQ(O(), 0);
  ASSERT_EQ(W("debug 4"), 7);  // the mask survives the channel
  channel.reset();
  settle();
  EXPECT_NE(life().find("trace.lookup"), std::string::npos);
}

TEST_F(Trace, AReadTellsEveryVerdictAndItsReason) {
  ASSERT_TRUE(trace::select("prep_read"));
  like_the_kernel();
  BO();
  auto o = opened("key", 16384);
  auto said = [&](auto steps) {
    ::testing::internal::CaptureStderr();
    steps();
    return ::testing::internal::GetCapturedStderr();
  };
  Outcome data;
  uint32_t id = 0;
  EXPECT_NE(said([&] { data = C(*o.cookie, 0, 8192); }).find("verdict=ask reason=seek-enxio start=0 len=8192"),
            std::string::npos);
  id = next().msg_id;
  handle(o.fd).pwrite(blocks(4096), 4096);
  std::string text = said([&] { cr(o.fd, id); });
  EXPECT_NE(text.find("verdict=download reason=found-hole start=0 len=4096"), std::string::npos) << text;
  EXPECT_EQ(data->wait(), -EIO);
  text = said([&] { data = C(*o.cookie, 4096, 8192); });
  EXPECT_NE(text.find("verdict=read reason=found-part start=4096 len=4096"), std::string::npos) << text;
  EXPECT_NE(text.find("verdict=ask reason=seek-enxio start=8192 len=4096"), std::string::npos) << text;
  text = said([&] { last_wait->cancel(); });
  EXPECT_NE(text.find("verdict=invalid reason=found-hole"), std::string::npos) << text;
  text = said([&] { EXPECT_TRUE(o.cookie->present({4096, 8192})); });
  EXPECT_NE(text.find("verdict=read reason=have-data start=4096 len=4096"), std::string::npos) << text;
  set_error_injection(2);
  text = said([&] { data = C(*o.cookie, 0, 4096); });
  EXPECT_NE(text.find("verdict=download reason=seek-error"), std::string::npos) << text;
  EXPECT_EQ(data->wait(), -EIO);
}

TEST_F(Trace, AFailedCallNamesItsOperation) {
  ASSERT_TRUE(trace::select("vfs_error,io_error"));
  like_the_kernel();
  ::testing::internal::CaptureStderr();
  BO();
  auto fails_to_open = [&](const char* volume, unsigned mask) {
    set_error_injection(mask);
    auto c = cookie("key", volume);
    EXPECT_EQ(use(*c)->wait(), -ENOBUFS);
    set_error_injection(0);
  };
  fails_to_open("new", 1);
  auto o = opened("old", 8192);
  fails_to_open("v", 1);
  set_error_injection(1);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOSPC);
  set_error_injection(2);
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(data->wait(), -EIO);
  std::string out(4096, '?');
  EXPECT_EQ(o.cookie->read(std::as_writable_bytes(std::span(out)), 0), -EIO);
  set_error_injection(1);
  auto gone = rel(o.cookie);
  next();
  gone->wait();  // its label cannot be written: the cache is dead
  set_error_injection(0);
  forget(o.cookie);
  stop();
  disk.error = -EIO;
  EXPECT_EQ(O(), 0);
  W("dir " + dir.path());
  EXPECT_EQ(W("bind ondemand"), -EIO);
  stop();
  disk.error = 0;
  std::string text = ::testing::internal::GetCapturedStderr();
  for (const char* call : {"inode=0 operation=mkdir errno=28", "operation=tmpfile errno=28", "operation=write errno=28",
                           "operation=seek errno=5", "operation=read errno=5", "operation=setxattr errno=28"})
    EXPECT_NE(text.find(call), std::string::npos) << call << " in\n" << text;
  EXPECT_NE(text.find("trace.io_error object="), std::string::npos) << text;
  EXPECT_NE(text.find("\"write a label\" errno=28"), std::string::npos) << text;
}

TEST_F(Trace, SwitchedOffNothingIsWritten) { EXPECT_EQ(life().find("cachefiles.trace"), std::string::npos); }

TEST_F(Trace, TheListingShowsWhatThereIs) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  auto listing = engine().listing();
  ASSERT_EQ(listing.caches.size(), 1u);
  EXPECT_EQ(listing.caches[0].tag, "CacheFiles");
  EXPECT_EQ(listing.caches[0].directory, dir.path());
  EXPECT_EQ(listing.caches[0].state, 'A');
  EXPECT_EQ(listing.caches[0].objects, 1u);
  EXPECT_EQ(listing.caches[0].requests, 1u);
  EXPECT_EQ(listing.caches[0].pins, 2u);  // the channel and a handle
  ASSERT_EQ(listing.volumes.size(), 1u);
  EXPECT_EQ(listing.volumes[0].key, "v");
  ASSERT_EQ(listing.cookies.size(), 1u);
  EXPECT_EQ(as_text(listing.cookies[0].key), "key");
  EXPECT_EQ(listing.cookies[0].state, 'A');
  EXPECT_EQ(listing.cookies[0].uses, 1u);
  std::map<std::string, uint64_t> counters(listing.counters.begin(), listing.counters.end());
  EXPECT_EQ(counters["cookies"], 1u);
  EXPECT_EQ(counters["acquires"], 1u);
  EXPECT_EQ(counters["reads"], 1u);
  EXPECT_EQ(engine().listing(0).cookies.size(), 0u);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
