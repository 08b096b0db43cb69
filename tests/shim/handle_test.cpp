// Anonymous descriptors of objects behind the preload library, and the on-demand protocol around them.
#include "tests/shim/client.h"

namespace hydrant::shim_test {
namespace {

const std::string kReadComplete = std::to_string(0x40049801);

TEST_F(Shim, AnOpenBringsADescriptor) {
  bind();
  Object object = use("key");
  EXPECT_EQ(text("poll poll 30000 3 5"), "1 1");
  EXPECT_EQ(read("read", 40).result, -EMSGSIZE);  // T40
  Message open = read();
  EXPECT_EQ(open.result, long(32 + sizeof "erofs,test" + 3));  // T39
  EXPECT_EQ(open.u32(0), 0u);
  EXPECT_EQ(open.u32(4), 0u);
  EXPECT_EQ(open.u32(8), open.result);
  EXPECT_EQ(open.u32(12), 1u);
  EXPECT_EQ(open.handle(), "4") << "the lowest free number";
  EXPECT_EQ(call("fcntl 4 " + std::to_string(F_GETFD)), 0) << "not close-on-exec";
  EXPECT_EQ(call("fcntl 4 " + std::to_string(F_GETFL)), O_WRONLY);
  EXPECT_EQ(poll(), "0 0");  // T41
  EXPECT_EQ(read().result, 0);
  EXPECT_EQ(call("write pwrite 4 0 *4096"), -ENOBUFS);  // T42
  EXPECT_EQ(call("lseek 4 0 0"), -ENOBUFS);
  EXPECT_EQ(write("copen 0,8192"), 12);
  EXPECT_EQ(object.active->wait(), 0);
  EXPECT_EQ(call("write pwrite 4 0 *4096"), 4096);
  EXPECT_EQ(write("copen 0,8192"), -EINVAL);  // T43
}

TEST_F(Shim, EveryWriteFillsTheObject) {
  bind();
  std::string handle;
  Object object = opened("key", 1 << 20, &handle);
  std::string h = " " + handle + " ";
  for (std::string how : {"pwrite", "pwrite64", "pwritev", "pwritev64", "pwritev2"})
    EXPECT_EQ(call("write " + how + h + "4096 *100"), 100) << how;  // T66
  EXPECT_EQ(call("write pwrite" + h + "100 *4096"), -ENOBUFS);
  EXPECT_EQ(call("write pwrite" + h + "-4096 *4096"), -EINVAL);
  EXPECT_EQ(call("write pwrite" + h + "0"), 0);
  EXPECT_EQ(call("write write" + h + "*4096"), 4096);
  EXPECT_EQ(call("write writev" + h + "*4096"), 4096) << "at its own position";
  EXPECT_EQ(bytes_of(object, 4096, 4096), std::string(4096, 'x'));
  EXPECT_EQ(call("write pwrite" + h + "8192 bad"), -EFAULT);
  EXPECT_EQ(call("lseek" + h + "0 " + std::to_string(SEEK_DATA)), 0);  // T67
  EXPECT_EQ(call("lseek64" + h + "0 " + std::to_string(SEEK_HOLE)), 8192);
  EXPECT_EQ(call("lseek" + h + "0 9"), -EINVAL);
  EXPECT_EQ(call("read read" + h + "10"), -EBADF);  // T68
  EXPECT_EQ(call("read readv" + h + "10"), -EBADF);
  EXPECT_EQ(call("read pread" + h + "10 0"), -EBADF);
  EXPECT_EQ(call("ioctl" + h + "0x1234 0"), -EINVAL);
  EXPECT_EQ(text("stat fstat" + h), "600");
  object.cookie->unuse();
}

TEST_F(Shim, LargeWritesAreOneOperation) {
  bind();
  std::string handle;
  Object object = opened("key", 256 << 20, &handle);
  std::string h = " " + handle + " ";
  for (size_t size : {65536, 65537, 1 << 20, (4 << 20) + 5}) {
    EXPECT_EQ(call("write pwrite" + h + "1048576 *" + std::to_string(size)), long(size));
    EXPECT_EQ(bytes_of(object, 1 << 20, size), std::string(size, 'x')) << size;
  }
  EXPECT_EQ(call("write pwritev" + h + "33554432 *1048577"), 1048577);
  EXPECT_EQ(call("write write" + h + "*1048576"), 1048576);
  EXPECT_EQ(call("write write" + h + "*100000"), 100000) << "behind the one before";
  EXPECT_EQ(bytes_of(object, 1 << 20, 100000), std::string(100000, 'x'));
  // More than goes through memory at once is written in turns.
  EXPECT_EQ(call("write pwrite" + h + "67108864 *67112960"), 67112960);
  EXPECT_EQ(bytes_of(object, 134217728, 4096), std::string(4096, 'x'));
  object.cookie->unuse();
}

TEST_F(Shim, AStopLimitRefusesTheWholeWrite) {
  bind();
  std::string handle;
  Object object = opened("key", 1 << 30, &handle);
  disk_.free_blocks = 10'100;  // stop is 10 000: 100 blocks are left
  EXPECT_EQ(call("write pwrite " + handle + " 0 *4194304"), -ENOBUFS) << "not a part of it";
  EXPECT_FALSE(object.cookie->present({0, 4096}));
  EXPECT_EQ(call("write pwrite " + handle + " 0 *65536"), 65536);
  object.cookie->unuse();
}

TEST_F(Shim, AReadIsAnsweredOnItsDescriptor) {
  bind();
  std::string handle, other;
  Object object = opened("key", 8192, &handle);
  Object second = opened("second", 8192, &other);
  auto filled = ensure(object, 0, 8192);
  Message message = next();  // T54
  EXPECT_EQ(message.result, 32);
  EXPECT_EQ(message.u32(4), 2u);
  EXPECT_EQ(message.u64(16), 0u);
  EXPECT_EQ(message.u64(24), 8192u);
  EXPECT_EQ(call("ioctl " + other + " " + kReadComplete + " " + message.id()), -EINVAL);  // T60
  EXPECT_EQ(call("ioctl " + handle + " " + kReadComplete + " 99"), -EINVAL);
  EXPECT_EQ(call("ioctl " + handle + " " + kReadComplete + " 0x100000000"), -EINVAL);
  EXPECT_EQ(write("copen " + message.id() + ",1"), -EINVAL);
  EXPECT_EQ(call("write pwrite " + handle + " 0 *8192"), 8192);
  EXPECT_EQ(call("ioctl " + handle + " " + kReadComplete + " " + message.id()), 0);  // T55
  EXPECT_EQ(filled->wait(), 0);
  EXPECT_EQ(call("ioctl " + handle + " " + kReadComplete + " " + message.id()), -EINVAL);  // T61
  object.cookie->unuse();
  second.cookie->unuse();
}

TEST_F(Shim, ACloseIsSeenByTheNextCommand) {
  for (int i = 0; i < 20; ++i) {
    bind();
    Object object = use("key");
    Message open = next();
    EXPECT_EQ(call("close " + open.handle()), 0);
    EXPECT_EQ(write("copen " + open.id() + ",8192"), long(7 + open.id().size() + 4));  // T49
    EXPECT_NE(object.active->wait(), 0) << "the descriptor was closed first";
    EXPECT_EQ(call("close 3"), 0);
  }
}

TEST_F(Shim, AClosedObjectIsOpenedAnew) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  EXPECT_EQ(call("close " + handle), 0);
  auto filled = ensure(object, 0, 4096);
  EXPECT_EQ(poll("poll", 30000), "1 1");  // T71
  EXPECT_EQ(read().result, 0);
  Message open = next();
  EXPECT_EQ(open.u32(4), 0u);
  EXPECT_EQ(open.u32(12), 2u) << "another object id";
  EXPECT_EQ(write("copen " + open.id() + ",8192"), long(std::string("copen ,8192").size() + open.id().size()));
  Message message = next();  // T72
  EXPECT_EQ(message.u32(4), 2u);
  EXPECT_EQ(message.u32(12), 2u);
  EXPECT_EQ(call("write pwrite " + open.handle() + " 0 *4096"), 4096);
  EXPECT_EQ(call("ioctl " + open.handle() + " " + kReadComplete + " " + message.id()), 0);
  EXPECT_EQ(filled->wait(), 0);
  object.cookie->unuse();
}

TEST_F(Shim, ADescriptorOutlivesItsDevice) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  auto filled = ensure(object, 0, 4096);
  Message message = next();
  EXPECT_EQ(call("close 3"), 0);  // T63
  EXPECT_EQ(filled->wait(), -EIO);
  EXPECT_EQ(call("write pwrite " + handle + " 0 *4096"), 4096);
  EXPECT_EQ(call("ioctl " + handle + " " + kReadComplete + " " + message.id()), -EINVAL);
  EXPECT_EQ(call("open open 2"), -EBUSY);
  EXPECT_EQ(call("close " + handle), 0);
  object.cookie.reset();
  volume_.reset();
  EXPECT_EQ(call("open open 2"), 3);
}

TEST_F(Shim, OnlyTheLastCopyCloses) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  EXPECT_EQ(call("dup " + handle), 5);
  EXPECT_EQ(call("pass " + handle), 8);
  EXPECT_EQ(call("close " + handle), 0);
  EXPECT_EQ(call("write pwrite 5 0 *4096"), 4096);
  EXPECT_EQ(call("close 5"), 0);
  EXPECT_EQ(call("fork write pwrite 8 4096 *4096"), 4096);
  start_line("exec execv");
  EXPECT_EQ(call("write pwrite 8 4096 *100"), 100) << "after an exec, in which it was open";
  EXPECT_EQ(call("close 8"), 0);
  ensure(object, 0, 4096);
  EXPECT_TRUE(object.cookie->present({0, 8192}));
  object.cookie->unuse();
}

TEST_F(Shim, AFullTableFailsTheOpenAlone) {
  bind();
  Object object = use("key");
  EXPECT_EQ(poll("poll", 30000), "1 1");
  call("full 0");
  EXPECT_EQ(read().result, -EMFILE);  // T51
  EXPECT_NE(object.active->wait(), 0);
  EXPECT_EQ(read().result, 0);
  EXPECT_EQ(poll(), "0 0");
  EXPECT_EQ(write("restore"), 7) << "everything else works on";
  EXPECT_EQ(write("bad"), -EFAULT);
}

TEST_F(Shim, AMessageThatCannotBeStoredFails) {
  bind();
  Object object = use("key");
  EXPECT_EQ(poll("poll", 30000), "1 1");
  EXPECT_EQ(call("read edge 3 1024"), -EFAULT);  // T52
  EXPECT_NE(object.active->wait(), 0);
  EXPECT_EQ(call("open other 0"), 4) << "no descriptor was left";
  EXPECT_EQ(read().result, 0);
}

TEST_F(Shim, NothingIsSplicedIntoAnObject) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  EXPECT_EQ(text("pipe"), "5 6");
  EXPECT_EQ(call("put 6"), 1);
  EXPECT_EQ(call("sendfile " + handle + " 0"), -EINVAL);
  EXPECT_EQ(call("splice 5 " + handle), -EINVAL);
  EXPECT_EQ(call("copy " + handle + " 0"), -EBADF);
  EXPECT_EQ(call("write pwrite " + handle + " 0 *4096"), 4096) << "it is as it was";
  object.cookie->unuse();
}

// The whole of a daemon that knows nothing of us, through its life.
TEST_F(Shim, ADaemonOfTheKernelServesAFile) {
  std::string content;
  for (int i = 0; i < 3'000'000; ++i) content += char('a' + i % 23);
  std::ofstream(scratch_.path() + "/file") << content;
  Process daemon({SHIM_DAEMON, root_, scratch_.path() + "/file", "1"}, environment());
  ASSERT_EQ(daemon.receive(), "ready");
  Object object = use("a file");
  ASSERT_EQ(object.active->wait(), 0);
  EXPECT_EQ(object.cookie->size(), content.size());
  std::vector<cachefiles::test::Outcome> outcomes;
  for (uint64_t at = 0; at < content.size(); at += 700'000)
    outcomes.push_back(ensure(object, at, std::min<uint64_t>(700'000, content.size() - at)));
  for (auto& outcome : outcomes) EXPECT_EQ(outcome->wait(), 0);
  EXPECT_EQ(bytes_of(object, 0, content.size()), content);
  object.cookie->unuse();
  object.cookie.reset();
  volume_.reset();
  EXPECT_EQ(daemon.receive(), "") << "it was told of the close, and ended";
  EXPECT_EQ(daemon.finish(), 0);
}

}  // namespace
}  // namespace hydrant::shim_test
