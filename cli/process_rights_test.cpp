#include "cli/process_rights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"
#include "base/temporary_directory.h"

namespace hydrant::cli {
namespace {

TEST(ProcessRights, AreWhatTheKernelSays) {
  auto rights = parse_rights(
      "Name:\thydrantd\nUid:\t87539\t87539\t87539\t87539\nCapInh:\t0000000000000000\nCapPrm:\t0000000000200006\n"
      "CapEff:\t0000000000200006\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n");
  EXPECT_EQ(rights.user, "87539");
  EXPECT_EQ(rights.capabilities, "dac_override,dac_read_search,sys_admin");
  EXPECT_EQ(rights.bounding, "all");
  EXPECT_TRUE(rights.no_new_privileges);
  EXPECT_EQ(rights.seccomp, "filter");
}

TEST(ProcessRights, OfAKernelWithoutTheLinesAreNone) {
  auto rights = parse_rights("Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n");
  EXPECT_EQ(rights.user, "root");
  EXPECT_EQ(rights.capabilities, "none");
  EXPECT_FALSE(rights.no_new_privileges);
  EXPECT_EQ(rights.seccomp, "off");
}

TEST(ProcessRights, NameWhereTheProcessWritesNow) {
  TemporaryDirectory directory;
  Fd file(::open((directory.path() + "/f").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  auto writes = [&] {
    auto rights = rights_of("test", ::getpid());
    EXPECT_TRUE(rights);
    return std::ranges::count(rights->open_for_writing, directory.path());
  };
  EXPECT_EQ(writes(), 1);
  file.reset(::open((directory.path() + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(writes(), 0);
}

TEST(ProcessRights, OfNobodyAreNothing) { EXPECT_FALSE(rights_of("test", int64_t(1) << 40)); }

}  // namespace
}  // namespace hydrant::cli
