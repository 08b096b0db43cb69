#include "daemon/keeper/descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace hydrant::daemon::keeper {
namespace {

using namespace std::chrono_literals;

TEST(Hold, LastsFromTheFirstDeathToReady) {
  Instant now{1h};
  Hold hold;
  EXPECT_EQ(hold.until(), Hold::kNever);
  hold.lost(now);
  hold.lost(now + 30s);  // the next life died too
  EXPECT_EQ(hold.until(), now + 60s);
  EXPECT_FALSE(hold.over(now + 60s - 1ns));
  EXPECT_TRUE(hold.over(now + 60s));
  hold.ready();
  EXPECT_FALSE(hold.over(now + 1h));
}

TEST(Hold, LastsAsLongAsItIsTold) {
  Instant now{1h};
  Hold hold(*parse_hold("2"));
  hold.lost(now);
  EXPECT_EQ(hold.until(), now + 2s);
  EXPECT_EQ(parse_hold("3600"), Duration(3600s));
  for (const char* text : {"", "0", "-1", "3601", "1.5", "2s", " 2", "99999999999"})
    EXPECT_FALSE(parse_hold(text)) << text;
}

TEST(Notice, IsWhatSdNotifySends) {
  auto store = parse_notice("FDSTORE=1\nFDPOLL=0\nFDNAME=fuse\n");
  EXPECT_EQ(store.kind, Notice::Kind::kStore);
  EXPECT_EQ(store.name, "fuse");
  auto remove = parse_notice("FDSTOREREMOVE=1\nFDNAME=fuse");
  EXPECT_EQ(remove.kind, Notice::Kind::kRemove);
  EXPECT_EQ(remove.name, "fuse");
  EXPECT_EQ(parse_notice("STATUS=fine\nREADY=1\n").kind, Notice::Kind::kReady);
}

TEST(Notice, OfAnotherFormIsNone) {
  using namespace std::string_literals;
  for (const std::string& text : {""s, "\n"s, "READY=0"s, "FDSTORE=1"s, "FDSTORE=1\nFDNAME="s, "FDNAME=a"s,
                                  "FDSTORE=1\nFDNAME=a:b"s, "FDSTORE=1\nFDNAME="s + std::string(64, 'n')})
    EXPECT_EQ(parse_notice(text).kind, Notice::Kind::kNone) << text;
}

int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Descriptors, MayBeSparedByTheBeginningOfTheirNames) {
  Descriptors descriptors;
  int group = open_null(), other = open_null(), record = open_null();
  descriptors.store("fanotify", group);
  descriptors.store("fuse", other);
  descriptors.store("fanotify-files", record);
  EXPECT_EQ(descriptors.count("fanotify"), 1u);
  EXPECT_EQ(descriptors.count(), 3u);
  descriptors.clear("fanotify");
  EXPECT_TRUE(is_open(group) && is_open(record));
  EXPECT_FALSE(is_open(other));
  EXPECT_EQ(descriptors.find("fanotify"), group);
  EXPECT_EQ(descriptors.find("fuse"), -1);
  descriptors.clear();
  EXPECT_FALSE(is_open(group) || is_open(record));
}

TEST(Descriptors, AreReplacedByNameAndClosedWithTheHolder) {
  int first = open_null(), second = open_null(), third = open_null();
  {
    Descriptors descriptors;
    descriptors.store("a", first);
    descriptors.store("b", second);
    descriptors.store("a", third);
    EXPECT_FALSE(is_open(first));
    EXPECT_EQ(descriptors.count(), 2u);
    descriptors.remove("b");
    descriptors.remove("c");
    EXPECT_FALSE(is_open(second));
    EXPECT_TRUE(is_open(third));
  }
  EXPECT_FALSE(is_open(third));
}

TEST(Descriptors, AreNeverMoreThanTheLimit) {
  Descriptors descriptors;
  for (size_t i = 0; i <= kMaxDescriptors; ++i) descriptors.store(std::to_string(i), open_null());
  EXPECT_EQ(descriptors.count(), kMaxDescriptors);
}

TEST(Descriptors, StandFromThreeOnInTheChild) {
  Descriptors descriptors;
  int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  struct stat expected {};
  ASSERT_EQ(::fstat(file, &expected), 0);
  descriptors.store("null", open_null());
  descriptors.store("exe", file);
  pid_t child = ::fork();
  if (child == 0) {
    static char names[kMaxDescriptors * (kMaxName + 1) + 1];
    descriptors.hand_down(names);
    struct stat found {};
    bool right = std::string_view(names) == "null:exe" && ::fstat(4, &found) == 0 && found.st_ino == expected.st_ino &&
                 ::fcntl(3, F_GETFD) == 0 && ::fcntl(4, F_GETFD) == 0;
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace hydrant::daemon::keeper
