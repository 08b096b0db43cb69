#include "cachefiles/commands.h"

#include <gtest/gtest.h>

namespace hydrant::cachefiles {
namespace {

TEST(Commands, SplitAtTheFirstWhiteSpaceAndKeepTrailingBlanks) {
  Command command;
  ASSERT_EQ(split_command(as_bytes("dir \t /a b \nrest"), &command), 0);
  EXPECT_EQ(command.word, "dir");
  EXPECT_EQ(command.arguments, "/a b ");
  ASSERT_EQ(split_command(as_bytes("tag\xa0x"), &command), 0);  // 0xA0 is white space to the kernel
  EXPECT_EQ(command.arguments, "x");
}

TEST(Commands, NumbersAreReadAsTheKernelReadsThem) {
  uint64_t u;
  EXPECT_EQ(parse_unsigned("0x10", &u), 0);
  EXPECT_EQ(u, 16u);
  EXPECT_EQ(parse_unsigned("010", &u), 0);
  EXPECT_EQ(u, 8u);
  for (auto bad : {"", "+", "-1", " 1", "1 ", "08", "0x", "1,", "++1"})
    EXPECT_EQ(parse_unsigned(bad, &u), -EINVAL) << bad;
  EXPECT_EQ(parse_unsigned("18446744073709551616", &u), -ERANGE);
  int64_t s;
  EXPECT_EQ(parse_signed("-9223372036854775808", &s), 0);
  EXPECT_EQ(s, INT64_MIN);
  EXPECT_EQ(parse_signed("9223372036854775808", &s), -ERANGE);
  EXPECT_EQ(parse_signed("-+1", &s), -EINVAL);
}

}  // namespace
}  // namespace hydrant::cachefiles
