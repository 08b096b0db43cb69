#include "fetch/served.h"

#include <gtest/gtest.h>

namespace hydrant::fetch {
namespace {

TEST(Served, NamesStandInFrontOfSources) {
  auto served = [](const std::string& text) {
    auto parsed = parse_served(text, "/home/u");
    return parsed ? parsed->name + " " + parsed->source : std::string(to_string(parsed.error().code));
  };
  EXPECT_EQ(served("localhost:5000/app:1"), " localhost:5000/app:1");
  EXPECT_EQ(served("app=localhost:5000/app:1"), "app localhost:5000/app:1");
  EXPECT_EQ(served("a-b.c_1=file:x=y.erofs"), "a-b.c_1 file:///home/u/x=y.erofs");
  EXPECT_EQ(served("oci:dir=1"), " oci:/home/u/dir=1");
  EXPECT_EQ(served("https://host/a?b=c"), " https://host/a?b=c");
  EXPECT_EQ(served("=oci:/a"), "invalid");
  EXPECT_EQ(served("a,b=oci:/a"), "invalid");
  EXPECT_EQ(served(std::string(201, 'a') + "=oci:/a"), "invalid");
  EXPECT_EQ(served("app="), "invalid");
}

TEST(Served, TheMountCommandNamesObjectAndDomain) {
  EXPECT_EQ(mount_command({}, {.fsid = "ab", .domain_id = "hydrant"}),
            "mount -t erofs -o fsid=ab,domain_id=hydrant none DIR");
  EXPECT_EQ(mount_command({.name = "app", .source = ""}, {.fsid = "ab"}), "mount -t erofs -o fsid=app none DIR");
}

}  // namespace
}  // namespace hydrant::fetch
