// The fanotify front against the real kernel: a backing file under marks, read through EROFS. Who reads is another
// process: what our own threads read is let through unseen.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>

#include "base/fs_context.h"
#include "base/unix_socket.h"
#include "daemon/erofs_mount.h"
#include "daemon/mount_check.h"
#include "front/fanotify/marked_files.h"
#include "tests/front/fake_cookie.h"
#include "tests/front/kernel_test.h"

namespace hydrant {
namespace {

namespace fs = std::filesystem;
using front::HeldMarks;
using front::MarkedFiles;
using testing::Child;
using testing::eventually;
using testing::FakeCookie;
using testing::oracle_bytes;

constexpr uint64_t kSize = 8 << 20;
constexpr uint64_t kSeed = 6;
constexpr int kWrong = 250;

class MarkedFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_MOUNTS();
    if (std::system("command -v mkfs.erofs >/dev/null")) GTEST_SKIP() << "NOT RUN: no mkfs.erofs (erofs-utils)";
    auto made = MarkedFiles::create({});
    if (!made) GTEST_SKIP() << "NOT RUN: " << made.error().what;
    std::ofstream(scratch / "probe") << "x";
    if (auto marked = (*made)->deny(*open_file(scratch / "probe", O_RDONLY)); !marked)
      GTEST_SKIP() << "NOT RUN: " << marked.error().what;

    Buffer bytes = oracle_bytes(kSeed, 0, kSize);
    std::ofstream(scratch.make("tree") + "/data", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    std::string command = "mkfs.erofs --quiet -Eforce-inode-extended --chunksize=4096 --blobdev=" + (scratch / "blob") +
                          " " + (scratch / "meta") + " " + (scratch / "tree") + " >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0);
  }

  std::shared_ptr<FakeCookie> cookie(const std::string& name = "sparse") {
    auto source = std::make_shared<Fd>(*open_file(scratch / "blob", O_RDONLY));
    return std::make_shared<FakeCookie>(
        scratch / name, fs::file_size(scratch / "blob"),
        [source](uint64_t at, MutableBytes out) { EXPECT_TRUE(pread_exact(source->get(), out, at)); });
  }

  struct Mounted {
    std::shared_ptr<MarkedFiles::File> file;
    Fd mount;
    std::string path;  // of its only file
  };
  Result<Mounted> mount(MarkedFiles& marks, const std::shared_ptr<FakeCookie>& cookie) {
    Mounted out;
    HYDRANT_TRY(Fd backing, cookie->backing_file());
    HYDRANT_TRY(out.file, marks.mark(cookie, backing, {"volume", "id"}));
    HYDRANT_TRY(out.mount, mount_over(std::move(backing), &marks, &out));
    return out;
  }
  Result<Fd> mount_over(Fd backing, MarkedFiles* marks, Mounted* out) {
    daemon::ErofsSource source;
    HYDRANT_TRY(source.primary, open_file(scratch / "meta", O_RDONLY));
    source.devices.push_back(std::move(backing));
    HYDRANT_TRY(auto made, daemon::make_erofs_mount(source));
    if (marks) HYDRANT_TRY_VOID(marks->used_by(out->file, made.super));
    std::string dir = scratch.make("mnt");
    HYDRANT_TRY(Fd directory, open_file(dir, O_PATH | O_DIRECTORY));
    HYDRANT_TRY_VOID(attach_mount(made.mount, directory));
    out->path = dir + "/data";
    return std::move(made.mount);
  }

  // A process that reads 4096 bytes at `offset`: 0, an errno, or kWrong.
  static std::unique_ptr<Child> reader(const std::string& path, uint64_t offset) {
    return std::make_unique<Child>([path, offset, right = oracle_bytes(kSeed, offset, 4096)] {
      const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      std::byte got[4096];
      const ssize_t n = ::pread(fd, got, sizeof got, static_cast<off_t>(offset));
      if (n < 0) return errno;
      return n == sizeof got && std::memcmp(got, right.data(), sizeof got) == 0 ? 0 : kWrong;
    });
  }

  testing::ScratchDir scratch;
};

TEST_F(MarkedFilesTest, WhatIsMissingComesBeforeItIsRead) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(data->requests(), 0u);
  for (uint64_t at : {uint64_t{0}, uint64_t{4 << 20}, kSize - 4096}) EXPECT_EQ(reader(mounted->path, at)->wait(), 0);
  EXPECT_GT(data->requests(), 0u);
  EXPECT_GT((*marks)->stat().misses, 0u);
}

TEST_F(MarkedFilesTest, ASelfTestSeesThatEventsCome) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  auto tested = daemon::self_test(mounted->mount, **marks, true);
  EXPECT_TRUE(tested) << tested.error().what;
  EXPECT_EQ(data->requests(), 0u);  // and fetches nothing
  EXPECT_EQ(reader(mounted->path, 0)->wait(), 0);
}

TEST_F(MarkedFilesTest, AMarkThatCameAfterTheMountIsFoundOut) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  Mounted late;
  auto made = mount_over(*data->backing_file(), nullptr, &late);
  ASSERT_TRUE(made) << made.error().what;
  auto marked = (*marks)->mark(data, *data->backing_file(), {"volume", "id"});
  ASSERT_TRUE(marked) << marked.error().what;
  auto tested = daemon::self_test(*made, **marks, true);
  ASSERT_FALSE(tested);
  EXPECT_EQ(tested.error().code, Code::kUnsupported);
}

TEST_F(MarkedFilesTest, WhatIsNotSuppliedIsAnError) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  data->set_mood(FakeCookie::Mood::kFail);
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), EIO);
  data->set_mood(FakeCookie::Mood::kFill);
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), 0);  // nothing of the failure stays
}

TEST_F(MarkedFilesTest, ACookieWithAnotherFileVouchesForNothing) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(reader(mounted->path, 0)->wait(), 0);
  data->replace();
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), EIO) << "filled somewhere else";
  EXPECT_EQ(reader(mounted->path, 0)->wait(), 0) << "the kernel has it";
}

TEST_F(MarkedFilesTest, WhoWaitsTooLongGetsAnErrorOnce) {
  auto marks = MarkedFiles::create({.read_limit = std::chrono::milliseconds(1200)});
  auto data = cookie();
  data->set_mood(FakeCookie::Mood::kHold);
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), EIO);
  EXPECT_EQ((*marks)->stat().too_slow, 1u);  // the kernel's second try was answered by the first
}

// The kernel names events by descriptors, whose numbers come again.
TEST_F(MarkedFilesTest, ALateAnswerIsNotForWhoeverHasTheNumberNow) {
  auto marks = MarkedFiles::create({.read_limit = std::chrono::milliseconds(1200)});
  auto data = cookie();
  data->set_mood(FakeCookie::Mood::kHold);
  data->ignore_cancels();
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), EIO);
  ASSERT_TRUE(eventually([&] { return data->cancelled() == data->requests(); }));
  const uint64_t late = data->requests();
  auto next = reader(mounted->path, 5 << 20);
  ASSERT_TRUE(eventually([&] { return data->requests() > late; }));
  for (uint64_t i = 0; i < late; ++i) data->serve_first();
  EXPECT_EQ((*marks)->stat().waiting, 1u) << "its bytes have not come";
  data->set_mood(FakeCookie::Mood::kFill);
  EXPECT_EQ(next->wait(), 0);
}

TEST_F(MarkedFilesTest, AReaderThatIsKilledIsGoneAtOnce) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  data->set_mood(FakeCookie::Mood::kHold);
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  auto waiting = reader(mounted->path, 1 << 20);
  ASSERT_TRUE(eventually([&] { return (*marks)->stat().waiting > 0; }));
  waiting->kill();
  EXPECT_EQ(waiting->wait(std::chrono::milliseconds(2000)), 128 + SIGKILL);
  data->set_mood(FakeCookie::Mood::kFill);
  EXPECT_EQ(reader(mounted->path, 1 << 20)->wait(), 0);
}

TEST_F(MarkedFilesTest, WhatIsCompleteIsAskedForNoMore) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_TRUE((*marks)->in_use());
  data->ensure({0, data->size()}, [](int) {});
  ASSERT_TRUE(eventually([&] { return data->complete(); }));
  (*marks)->collect();
  EXPECT_FALSE(MarkedFiles::marked(*mounted->file));
  EXPECT_FALSE((*marks)->in_use());
  const auto before = (*marks)->stat();
  EXPECT_EQ(reader(mounted->path, 3 << 20)->wait(), 0);
  EXPECT_EQ((*marks)->stat().hits, before.hits);
  marks->reset();
  EXPECT_EQ(reader(mounted->path, 2 << 20)->wait(), 0) << "and needs nobody";
}

TEST_F(MarkedFilesTest, TheGuardEndsWithTheLastThatReads) {
  auto marks = MarkedFiles::create({});
  auto data = cookie();
  std::weak_ptr<FakeCookie> kept = data;
  auto mounted = mount(**marks, data);
  ASSERT_TRUE(mounted) << mounted.error().what;
  data.reset();
  auto open = open_file(mounted->path, O_RDONLY);
  ASSERT_EQ(::umount2((scratch / "mnt").c_str(), MNT_DETACH), 0);
  mounted->mount.reset();
  mounted->file.reset();
  (*marks)->collect();
  EXPECT_EQ((*marks)->stat().files, 1u) << "somebody has a file of it open";
  EXPECT_FALSE(kept.expired());
  open->reset();
  EXPECT_TRUE(eventually([&] {
    (*marks)->collect();
    return (*marks)->stat().files == 0;
  }));
  EXPECT_TRUE(kept.expired());
}

TEST_F(MarkedFilesTest, FileSystemsWithoutSuchEventsAreRefused) {
  auto marks = MarkedFiles::create({});
  for (const char* type : {"tmpfs", "overlay"}) {
    std::string dir = scratch.make(type);
    std::string layers = "lowerdir=" + scratch.make("lower") + ",upperdir=" + scratch.make("up/upper") +
                         ",workdir=" + scratch.make("up/work");
    ASSERT_EQ(::mount("none", dir.c_str(), type, 0, *type == 't' ? "size=16m" : layers.c_str()), 0) << type;
    auto data = cookie(std::string(type) + "/sparse");
    auto marked = (*marks)->mark(data, *data->backing_file(), {"volume", "id"});
    ASSERT_FALSE(marked) << type;
    EXPECT_EQ(marked.error().code, Code::kUnsupported) << marked.error().what;
  }
}

// A server process that supplies nothing, with its mount; what guards its files comes to us.
class MarkedTakeoverTest : public MarkedFilesTest {
 protected:
  std::unique_ptr<Child> serve(HeldMarks& held) {
    auto ends = socket_pair(SocketType::kSeqPacket);
    EXPECT_TRUE(ends);
    auto server = std::make_unique<Child>([&] {
      auto marks = MarkedFiles::create({});
      if (!marks) return 1;
      auto data = cookie();
      data->set_mood(FakeCookie::Mood::kHold);
      auto mounted = mount(**marks, data);
      if (!mounted) return 2;
      HeldMarks mine = (*marks)->held();
      int fds[] = {mine.group.get(), mine.journal.get(), mine.events.get()};
      if (send_packet(ends->second.get(), as_bytes("held"), {}, fds) < 0) return 3;
      for (;;) ::pause();
    });
    std::byte text[16];
    Packet packet;
    EXPECT_TRUE(wait_fd(ends->first.get(), POLLIN, Deadline::after(std::chrono::seconds(10))));
    EXPECT_GT(receive_packet(ends->first.get(), text, &packet), 0);
    EXPECT_EQ(packet.fd_count, 3u);
    held = {std::move(packet.fds[0]), std::move(packet.fds[1]), std::move(packet.fds[2]), {}, {}};
    return server;
  }
  // Over the file that is there, whose content is the dead one's.
  std::shared_ptr<FakeCookie> successor() {
    auto source = std::make_shared<Fd>(*open_file(scratch / "blob", O_RDONLY));
    return std::make_shared<FakeCookie>(
        scratch / "sparse", fs::file_size(scratch / "blob"),
        [source](uint64_t at, MutableBytes out) { EXPECT_TRUE(pread_exact(source->get(), out, at)); },
        FakeCookie::File::kExists);
  }
};

TEST_F(MarkedTakeoverTest, ReadersOfADeadServerAreServedByTheNextOne) {
  HeldMarks held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  std::vector<std::unique_ptr<Child>> readers;
  for (uint64_t i = 0; i < 20; ++i) readers.push_back(reader(scratch / "mnt/data", i * 262144));
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  readers.push_back(reader(scratch / "mnt/data", 7 << 20));
  EXPECT_EQ(readers[0]->wait(std::chrono::milliseconds(200)), -1) << "they wait";

  held.read_pending();
  held.reserve();
  EXPECT_FALSE(held.pending.empty());
  EXPECT_EQ(held.reserved, held.pending);
  auto data = successor();
  auto marks = MarkedFiles::take_over({}, std::move(held), [&](const proto::HandedBlob& blob) {
    EXPECT_EQ(blob.volume + "/" + blob.id, "volume/id");
    return Result<std::shared_ptr<cachefiles::Cookie>>(data);
  });
  ASSERT_TRUE(marks) << marks.error().what;
  for (auto& each : readers) EXPECT_EQ(each->wait(), 0);  // no zeros, and no error
  EXPECT_TRUE((*marks)->in_use());
  EXPECT_NE((*marks)->find({"volume", "id"}), nullptr);
}

// They are known by a number that means something else here.
TEST_F(MarkedTakeoverTest, WhatWeWerePassedLeavesTheNumbersOfEvents) {
  HeldMarks held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  std::vector<std::unique_ptr<Child>> readers;
  for (uint64_t i = 0; i < 3; ++i) readers.push_back(reader(scratch / "mnt/data", i * 262144));
  ASSERT_TRUE(eventually([&] {
    HeldMarks now{.group = {}, .journal = {}, .events = held.events.duplicate()};
    now.read_pending();
    return now.pending.size() >= 3;
  }));
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);

  HeldMarks probe{.group = {}, .journal = {}, .events = held.events.duplicate()};
  probe.read_pending();
  auto number = probe.pending.begin();
  for (Fd* each : {&held.group, &held.journal, &held.events}) {
    EXPECT_FALSE(probe.pending.contains(each->get()));
    ASSERT_EQ(::fcntl(*number, F_GETFD), -1) << "a number that this process has in use";
    Fd moved(::dup3(each->get(), *number++, O_CLOEXEC));
    *each = std::move(moved);
  }
  held.read_pending();
  held.reserve();
  EXPECT_EQ(held.reserved, probe.pending);
  auto data = successor();
  auto marks = MarkedFiles::take_over(
      {}, std::move(held), [&](const proto::HandedBlob&) { return Result<std::shared_ptr<cachefiles::Cookie>>(data); });
  ASSERT_TRUE(marks) << marks.error().what;
  for (auto& each : readers) EXPECT_EQ(each->wait(), 0);
}

TEST_F(MarkedTakeoverTest, FilesThatNobodyKnowsAnyMoreAreDenied) {
  HeldMarks held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  auto waiting = reader(scratch / "mnt/data", 0);
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  held.journal = Fd(::open("/dev/zero", O_RDWR));  // a record that is none
  auto marks = MarkedFiles::take_over(
      {}, std::move(held), [](auto&) -> Result<std::shared_ptr<cachefiles::Cookie>> { return fail(Code::kGone, ""); });
  ASSERT_TRUE(marks) << marks.error().what;
  EXPECT_EQ(waiting->wait(), EIO);
  EXPECT_EQ(reader(scratch / "mnt/data", 1 << 20)->wait(), EIO);
}

TEST_F(MarkedTakeoverTest, ANewGroupDeniesWhatADeadOneHadMarked) {
  HeldMarks held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  held = {};  // nobody holds it: from here on the kernel would read holes
  auto marks = MarkedFiles::create({});
  ASSERT_TRUE((*marks)->deny(*open_file(scratch / "sparse", O_RDONLY)));
  EXPECT_EQ(reader(scratch / "mnt/data", 0)->wait(), EIO);
}

}  // namespace
}  // namespace hydrant
