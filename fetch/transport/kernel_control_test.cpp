#include "fetch/transport/kernel_control.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/temporary_directory.h"
#include "base/unix_socket.h"
#include "proto/cachefiles_message.h"

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

Deadline soon() { return Deadline::after(60s); }

// A socket whose packets are what the device gives (an empty one is a read of 0), and takes: commands, all of which
// succeed. What a kernel refuses is asked of our engine (tests/e2e/test_device.py) and of a kernel (tests/oracle).
class KernelControlTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    kernel_.reset(ends[0]);
    auto control = KernelControl::start(Fd(ends[1]), {.cache_dir = directory_ + "/a/cache", .tag = "t"});
    ASSERT_TRUE(control) << control.error().what;
    control_ = *std::move(control);
  }

  std::string command() {
    char text[5000];
    ssize_t size = ::recv(kernel_.get(), text, sizeof text, 0);
    return size < 0 ? "none" : std::string(text, static_cast<size_t>(size));
  }
  void deliver(Bytes message) {
    ASSERT_EQ(::send(kernel_.get(), message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
  }
  // An OPEN whose handle is a file that is written as a kernel writes its own: past its cache, in whole blocks.
  OpenRequest open_object() {
    int fd = ::open((directory_ + "/object").c_str(), O_WRONLY | O_CREAT | O_DIRECT, 0600);
    EXPECT_GE(fd, 0) << "a file system without direct I/O";
    deliver(proto::encode_open({.msg_id = 3, .object_id = 7}, "erofs,hydrant", as_bytes("key"), fd).bytes());
    auto request = control_->next(soon());
    EXPECT_TRUE(request && std::holds_alternative<OpenRequest>(*request));
    return std::get<OpenRequest>(*std::move(request));
  }
  Buffer content() { return to_buffer(as_bytes(read_file(directory_ + "/object").value())); }

  const TemporaryDirectory temporary_;
  const std::string directory_ = temporary_.path();
  Fd kernel_;
  std::unique_ptr<Control> control_;
};

Buffer counting(size_t size) {
  Buffer out(size);
  for (size_t i = 0; i < size; ++i) out[i] = std::byte(i % 251);
  return out;
}

TEST_F(KernelControlTest, BindsACacheInItsDirectory) {
  EXPECT_EQ(command(), "dir " + directory_ + "/a/cache");
  EXPECT_EQ(command(), "tag t");
  EXPECT_EQ(command(), "bind ondemand");
  EXPECT_TRUE(std::filesystem::is_directory(directory_ + "/a/cache"));
  EXPECT_EQ(control_->write("copen 7,8192"), 12);
  EXPECT_EQ(command(), "copen 7,8192");
}

TEST_F(KernelControlTest, RefusesWhatCannotBeACommand) {
  auto start = [&](const std::string& directory, const std::string& tag) {
    return KernelControl::start(kernel_.duplicate(), {.cache_dir = directory, .tag = tag}).error().code;
  };
  EXPECT_EQ(start("relative", "t"), Code::kInvalid);
  EXPECT_EQ(start(directory_ + "/a\nbind", "t"), Code::kInvalid);
  EXPECT_EQ(start("/" + std::string(4096, 'a'), "t"), Code::kInvalid);
  EXPECT_EQ(start(directory_, ""), Code::kInvalid);
  EXPECT_EQ(start(directory_, "a b"), Code::kInvalid);
  EXPECT_EQ(KernelControl::open_device(directory_ + "/absent").error().code, Code::kNotFound);
}

TEST_F(KernelControlTest, RequestsComeAsTheyAre) {
  auto open = open_object();
  EXPECT_EQ(open.msg_id, 3U);
  EXPECT_EQ(open.object_id, 7U);
  EXPECT_EQ(open.volume_key, "erofs,hydrant");
  EXPECT_EQ(open.cookie_key, "key");
  deliver(proto::encode_read({.msg_id = 4, .object_id = 7}, {4096, 12288}).bytes());
  deliver(proto::encode_close({.msg_id = 5, .object_id = 7}).bytes());
  auto read = control_->next(soon()), close = control_->next(soon());
  ASSERT_TRUE(read && std::holds_alternative<ReadRequest>(*read));
  EXPECT_EQ(std::get<ReadRequest>(*read).msg_id, 4U);
  EXPECT_EQ(std::get<ReadRequest>(*read).range, (ByteRange{4096, 12288}));
  ASSERT_TRUE(close && std::holds_alternative<CloseRequest>(*close));
  EXPECT_EQ(std::get<CloseRequest>(*close).object_id, 7U);
}

TEST_F(KernelControlTest, AReadinessThatBringsNothingIsWaitedOver) {
  for (int i = 0; i < 3; ++i) deliver({});
  deliver(to_buffer(as_bytes("no message")));
  deliver(proto::encode_close({.msg_id = 5, .object_id = 7}).bytes());
  EXPECT_EQ(control_->next(soon()).error().code, Code::kCorrupt);
  EXPECT_TRUE(control_->next(soon()));
  deliver({});
  EXPECT_EQ(control_->next(Deadline(Instant::min())).error().code, Code::kTooSlow);
}

TEST_F(KernelControlTest, AnIdleDeviceIsAskedWhetherItLives) {
  for (int i = 0; i < 3; ++i) command();
  EXPECT_EQ(control_->next(Deadline::after(1ms)).error().code, Code::kTooSlow);
  EXPECT_EQ(command(), "");
  kernel_.reset();
  EXPECT_EQ(control_->next(soon()).error().code, Code::kGone);
}

TEST_F(KernelControlTest, StopEndsEveryNext) {
  std::jthread stopper([&] { control_->stop(); });
  EXPECT_EQ(control_->next(soon()).error().code, Code::kCancelled);
  EXPECT_EQ(control_->next(soon()).error().code, Code::kCancelled);
}

TEST_F(KernelControlTest, WritesAreWholeBlocksWhateverTheyAre) {
  auto handle = open_object().handle;
  control_.reset();  // which it outlives
  const Buffer bytes = counting(3 * (1 << 20) + 5001);
  // Neither the memory nor the length is one of blocks.
  auto odd = Bytes(bytes).subspan(1);
  EXPECT_EQ(handle->pwrite(odd, 8192), static_cast<int64_t>(odd.size()));
  Buffer file = content();
  EXPECT_EQ(file.size(), 8192 + round_up(odd.size(), 4096));
  EXPECT_TRUE(std::equal(odd.begin(), odd.end(), file.begin() + 8192));
  EXPECT_TRUE(std::all_of(file.begin() + 8192 + static_cast<ptrdiff_t>(odd.size()), file.end(),
                          [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(handle->pwrite(odd.first(10), 100), -ENOBUFS);
  EXPECT_EQ(handle->pwrite({}, 0), 0);
  EXPECT_EQ(content(), file);
}

TEST_F(KernelControlTest, StagedMemoryIsWrittenFromWhereItStands) {
  auto handle = open_object().handle;
  auto staging = handle->stage(1 << 20);
  ASSERT_TRUE(staging);
  const Buffer bytes = counting(9000);
  std::copy(bytes.begin(), bytes.end(), staging->bytes().begin());
  EXPECT_EQ(handle->pwrite(staging->bytes().first(9000), 0), 9000);
  Buffer file = content();
  ASSERT_EQ(file.size(), 12288U);
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), file.begin()));
  EXPECT_FALSE(handle->stage(1 << 30));
  EXPECT_EQ(handle->complete(4), -ENOTTY) << "a plain file completes nothing";
  EXPECT_EQ(handle->fill_and_complete(staging->bytes().first(4096), 0, 4), -ENOTTY);
}

}  // namespace
}  // namespace hydrant::fetch
