// An open /dev/cachefiles behind the preload library: every call of libc that a daemon may use on it, errno by errno.
#include <sys/ioctl.h>

#include "tests/shim/client.h"

namespace hydrant::shim_test {
namespace {

constexpr long kReadComplete = 0x40049801;

TEST_F(Shim, EveryOpenReachesTheDevice) {
  for (std::string how : {"open", "open64", "openat", "openat64", "fortified", "fortifiedat"}) {
    long fd = call("open " + how + " " + std::to_string(O_RDWR));
    EXPECT_EQ(fd, 3) << how << ": the lowest free number";
    EXPECT_EQ(call("write write 3 debug 0"), 7) << how;
    EXPECT_EQ(call("open " + how + " 2"), -EBUSY) << how << " T01";
    EXPECT_EQ(call("close 3"), 0);
  }
  EXPECT_EQ(call("open creat"), 3);
  EXPECT_EQ(call("close 3"), 0);
}

TEST_F(Shim, FlagsOfOpenMeanWhatTheyMean) {
  EXPECT_EQ(call("open open " + std::to_string(O_RDWR | O_CREAT | O_EXCL)), -EEXIST);
  EXPECT_EQ(call("open open " + std::to_string(O_RDWR | O_DIRECTORY)), -ENOTDIR);
  EXPECT_EQ(call("open open " + std::to_string(O_RDONLY | O_CLOEXEC)), 3);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFD)), FD_CLOEXEC);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFL)), O_RDONLY | 0100000);
  EXPECT_EQ(call("write write 3 debug 0"), -EBADF);
  EXPECT_EQ(call("read read 3 100"), 0);
  EXPECT_EQ(call("close 3"), 0);
  EXPECT_EQ(call("open open " + std::to_string(O_WRONLY | O_NONBLOCK)), 3);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFD)), 0);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFL)), O_WRONLY | O_NONBLOCK | 0100000);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_SETFL) + " 0"), 0);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFL)), O_WRONLY | 0100000);
  EXPECT_EQ(call("write write 3 debug 0"), 7);
  EXPECT_EQ(call("read read 3 100"), -EBADF);
}

TEST_F(Shim, NobodyServingIsAModuleThatIsNotThere) {
  server_.reset();
  EXPECT_EQ(call("open open 2"), -ENODEV);
}

TEST_F(Shim, EveryWriteIsOneCommand) {
  open();
  for (std::string how : {"write", "dprintf"}) EXPECT_EQ(call("write " + how + " 3 debug 0x7"), 9) << how;
  for (std::string how : {"pwrite", "pwrite64"}) EXPECT_EQ(call("write " + how + " 3 0 debug 0x7"), 9) << how;
  EXPECT_EQ(call("write pwrite 3 77 debug 0"), 7) << "the position means nothing";
  EXPECT_EQ(call("write pwrite 3 -1 debug 0"), -EINVAL);
  // The kernel's device takes each part of a vector for a command: "debu" is none.
  for (std::string how : {"writev 3", "pwritev 3 0", "pwritev64 3 0", "pwritev2 3 0"})
    EXPECT_EQ(call("write " + how + " debug 07"), -EOPNOTSUPP) << how;
  EXPECT_EQ(call("write writev 3 debug 0\\nx"), -EOPNOTSUPP);
  EXPECT_EQ(call("write writev 3 debug\\ndebug\\n"), 12);
}

TEST_F(Shim, TheParsersAnswersCome) {
  open();
  EXPECT_EQ(write(""), -EOPNOTSUPP);          // T04
  EXPECT_EQ(write("\\n"), -EINVAL);           // T05
  EXPECT_EQ(write("\\sdir D"), -EOPNOTSUPP);  // T06
  EXPECT_EQ(write("dir D\\0"), -EINVAL);      // T07
  EXPECT_EQ(write("*4096"), -EOPNOTSUPP);     // T08
  EXPECT_EQ(write("*1000000"), -EOPNOTSUPP);
  EXPECT_EQ(write("frun 20%\\nbogus"), 14);  // T09
  EXPECT_EQ(write("dir"), -EINVAL);          // T10
  EXPECT_EQ(write("dir " + root_), long(4 + root_.size()));
  EXPECT_EQ(write("dir E"), -EEXIST);
  EXPECT_EQ(write("tag a"), 5);  // T11
  EXPECT_EQ(write("tag b"), -EEXIST);
  EXPECT_EQ(write("copen 0,0"), -EOPNOTSUPP);  // T15
  EXPECT_EQ(write("cull a/b"), -EINVAL);       // T16
  EXPECT_EQ(write("cull x"), -EIO);
  EXPECT_EQ(write("bind ondemand"), 13);
  EXPECT_EQ(write("bind"), -EBUSY);                           // T21
  EXPECT_EQ(write("copen 99999999999999999999,1"), -ERANGE);  // T48
}

TEST_F(Shim, BytesThatCannotBeReadAreABadAddress) {
  open();
  EXPECT_EQ(write("bad"), -EFAULT);
  EXPECT_EQ(write("edge"), -EFAULT);
  EXPECT_EQ(write("debug 0"), 7) << "nothing was half sent";
}

TEST_F(Shim, EveryReadIsTheStateText) {
  bind("");
  for (std::string how : {"read", "fortified", "readv", "pread", "pread64", "preadv"}) {
    Message message = read(how, 4096);
    // A vector's first part takes the whole text; the rest of the call is another read, which the buffer stops.
    std::string state(as_text(message.bytes));
    EXPECT_EQ(message.result, long(state.size())) << how;
    EXPECT_EQ(state.substr(0, 12), "cull=0 frun=") << how;  // T27
  }
  EXPECT_EQ(read("read", 0).result, -EMSGSIZE);
  EXPECT_EQ(read("read", 10).result, -EMSGSIZE);
  EXPECT_EQ(call("read bad 3 4096"), -EFAULT);
  EXPECT_EQ(call("read edge 3 4096"), -EFAULT);
  EXPECT_EQ(call("read pread 3 4096 -1"), -EINVAL);
}

TEST_F(Shim, SeekAndIoctlOnTheDeviceDoNothing) {
  open();
  EXPECT_EQ(call("lseek 3 100 0"), 0);
  EXPECT_EQ(call("lseek64 3 100 1"), 0);
  EXPECT_EQ(call("lseek 3 0 99"), -EINVAL);
  EXPECT_EQ(call("ioctl 3 " + std::to_string(kReadComplete) + " 0"), -ENOTTY);
  EXPECT_EQ(call("ioctl 3 " + std::to_string(FIOCLEX)), 0);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_GETFD)), FD_CLOEXEC);
  EXPECT_EQ(call("ioctl 3 " + std::to_string(FIONREAD) + " 0"), -ENOTTY);
}

TEST_F(Shim, ItLooksLikeADevice) {
  open();
  for (std::string how : {"fstat 3", "stat", "lstat", "fstatat 3", "statx 3"})
    EXPECT_EQ(text("stat " + how), "20600") << how;
  EXPECT_EQ(call("access 6"), 0);
  EXPECT_EQ(call("access 1"), -EACCES);
}

TEST_F(Shim, CloseIsOverWhenItReturns) {
  for (int i = 0; i < 50; ++i) {
    bind();
    EXPECT_EQ(call("close 3"), 0);
  }
}

TEST_F(Shim, CopiesShareTheDevice) {
  open();
  EXPECT_EQ(call("dup 3"), 4);
  EXPECT_EQ(call("dup2 3 9"), 9);
  EXPECT_EQ(call("dup3 3 10 " + std::to_string(O_CLOEXEC)), 10);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_DUPFD) + " 20"), 20);
  EXPECT_EQ(call("fcntl 3 " + std::to_string(F_DUPFD_CLOEXEC) + " 21"), 21);
  EXPECT_EQ(call("pass 3"), 7);
  for (int fd : {3, 4, 7, 9, 10, 20, 21}) {
    EXPECT_EQ(call("write write " + std::to_string(fd) + " debug 0"), 7) << fd;
    EXPECT_EQ(call("open open 2"), -EBUSY) << fd << " is open";
    EXPECT_EQ(call("close " + std::to_string(fd)), 0);
    EXPECT_EQ(call("write write " + std::to_string(fd) + " debug 0"), -EBADF) << fd;
  }
  EXPECT_EQ(call("open open 2"), 3);
}

TEST_F(Shim, DescriptorsThatAreReplacedOrSweptAreClosed) {
  open();
  EXPECT_EQ(call("open other 0"), 4);
  EXPECT_EQ(call("dup2 4 3"), 3);
  EXPECT_EQ(call("open open 2"), 5) << "dup2 closed the device";
  EXPECT_EQ(call("dup2 5 5"), 5);
  EXPECT_EQ(call("write write 5 debug 0"), 7);
  EXPECT_EQ(call("dup2 99 5"), -EBADF) << "and nothing is closed";
  EXPECT_EQ(call("write write 5 debug 0"), 7);
  EXPECT_EQ(call("close_range 5 5 " + std::to_string(CLOSE_RANGE_CLOEXEC)), 0);
  EXPECT_EQ(call("fcntl 5 " + std::to_string(F_GETFD)), FD_CLOEXEC);
  EXPECT_EQ(call("close_range 3 4000000000 0"), 0);
  EXPECT_EQ(call("open open 2"), 3);
  EXPECT_EQ(call("poll poll 0 3 1"), 0);
  EXPECT_EQ(call("closefrom 3"), 0);
  EXPECT_EQ(call("open open 2"), 3);
  EXPECT_EQ(call("poll poll 0 3 1"), 0);
}

TEST_F(Shim, AChildHasItsParentsDevice) {
  open();
  for (std::string kind : {"fork", "vfork"}) {
    EXPECT_EQ(call(kind + " write write 3 debug 0"), 7) << kind;
    EXPECT_EQ(call(kind + " close 3"), 0) << kind;
    EXPECT_EQ(call("write write 3 debug 0"), 7) << kind << ": only its own is closed";
    EXPECT_EQ(text(kind + " poll poll 0 3 5"), "0 0") << kind;
    EXPECT_EQ(text("poll poll 0 3 5"), "0 0") << kind;
  }
}

TEST_F(Shim, AProgramThatIsExecutedHasIt) {
  open();
  for (std::string how : {"execve", "execv", "execl", "execle", "execvp", "execlp", "execvpe", "fexecve"}) {
    start_line("exec " + how);
    EXPECT_EQ(call("write write 3 debug 0"), 7) << how;
    EXPECT_EQ(text("poll poll 0 3 5"), "0 0") << how;
  }
  EXPECT_EQ(call("open open 2"), -EBUSY) << "the environment was handed on";
  start_line("spawn");
  EXPECT_EQ(call("write write 3 debug 0"), 7) << "in the spawned one";
  EXPECT_EQ(call("close 3"), 0);
  EXPECT_EQ(call("open open 2"), 3);
}

TEST_F(Shim, ACloseOnExecDeviceEndsWithTheExec) {
  EXPECT_EQ(call("open open " + std::to_string(O_RDWR | O_CLOEXEC)), 3);
  start_line("exec execv");
  EXPECT_EQ(call("write write 3 debug 0"), -EBADF);
  EXPECT_EQ(call("open open 2"), 3);
}

TEST_F(Shim, ADeadProcessFreesTheSlot) {
  Process& first = start();
  open();
  first.kill();
  first.finish();
  Process& second = start();
  second.send("open open 2");
  EXPECT_EQ(second.receive(), "3");
}

TEST_F(Shim, ThreadsDoNotGetEachOthersAnswers) {
  open();
  EXPECT_EQ(call("threads 3 8 200 debug 0"), 1600);
}

TEST_F(Shim, TwoProcessesShareOneDevice) {
  open();
  clients_.front()->send("fork threads 3 4 200 debug 0");
  EXPECT_EQ(std::atol(clients_.front()->receive().c_str()), 800);
}

TEST_F(Shim, CommandsWorkFromTheCallersDirectory) {
  EXPECT_EQ(call("chdir " + scratch_.path()), 0);
  open();
  EXPECT_EQ(write("dir root"), 8) << "relative";
  EXPECT_EQ(write("bind ondemand"), 13);
  std::filesystem::create_directories(root_ + "/cache/Ivolume");
  EXPECT_EQ(write("inuse Ivolume"), -EINVAL) << "the directory is not the cache's (E2)";
  EXPECT_EQ(call("chdir " + root_ + "/cache"), 0);
  EXPECT_EQ(write("inuse Ivolume"), 13);
  EXPECT_EQ(write("inuse nothing"), -ENOENT);
  EXPECT_EQ(write("cull Ivolume"), 12);  // T37
  EXPECT_EQ(write("cull Ivolume"), -ENOENT);
  EXPECT_FALSE(std::filesystem::exists(root_ + "/cache/Ivolume"));
}

TEST_F(Shim, ADeadCacheSaysSoFirst) {
  bind();
  disk_.error = -EIO;
  Object object = use("key");
  object.active->wait();
  ASSERT_EQ(write("restore"), -EIO) << "DEAD";
  EXPECT_EQ(write("*5000"), -EIO);
  EXPECT_EQ(write("bad"), -EIO);
  EXPECT_EQ(read().result, 0);
  disk_.error = 0;
}

TEST_F(Shim, AnEngineThatIsGoneIsAnInputOutputError) {
  bind();
  EXPECT_EQ(poll(), "0 0");
  server_.reset();
  EXPECT_EQ(write("restore"), -EIO);
  EXPECT_EQ(read().result, -EIO);
  EXPECT_EQ(call("close 3"), 0);
  EXPECT_EQ(call("open open 2"), -ENODEV);
}

TEST_F(Shim, NothingIsSplicedIntoIt) {
  open();
  EXPECT_EQ(text("pipe"), "4 5");
  EXPECT_EQ(call("put 5"), 1);
  EXPECT_EQ(call("sendfile 3 0"), -EINVAL);
  EXPECT_EQ(call("splice 4 3"), -EINVAL);
  EXPECT_EQ(call("copy 0 3"), -EINVAL);
  EXPECT_EQ(call("write write 3 debug 0"), 7) << "the device is as it was";
}

}  // namespace
}  // namespace hydrant::shim_test
