#include "fetch/credential_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/file.h"

namespace hydrant::fetch {
namespace {

constexpr char kConfig[] = R"({"auths":{"registry.example":{"auth":"YW5uOnB3"}}})";

TEST(CredentialStore, APutThatCouldNotBeWrittenIsRepeated) {
  std::string root = testing::TempDir() + "credentialsXXXXXX";
  ASSERT_NE(::mkdtemp(root.data()), nullptr);
  const std::string path = root + "/later/credentials.json";
  auto store = *CredentialStore::open(path);
  EXPECT_FALSE(store->put("registry.example", kConfig)) << "there is no directory";
  ASSERT_TRUE(make_directories(root + "/later"));
  auto again = store->put("registry.example", kConfig);
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_TRUE(*again);
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_FALSE(*store->put("registry.example", kConfig)) << "known by now";
  std::filesystem::remove_all(root);
}

// One bad file keeps nothing else from being served.
TEST(CredentialStore, ADamagedFileIsLikeNone) {
  std::string root = testing::TempDir() + "credentialsXXXXXX";
  ASSERT_NE(::mkdtemp(root.data()), nullptr);
  const std::string path = root + "/credentials.json";
  for (const std::string text :
       {"", "{", R"({"version":1,"registries":[]})", R"({"version":1,"registries":{"a":1}})"}) {
    ASSERT_TRUE(write_file_atomic(path, as_bytes(text)));
    auto store = CredentialStore::open(path);
    ASSERT_TRUE(store) << text << ": " << store.error().what;
    EXPECT_TRUE((*store)->find("a"));
    EXPECT_TRUE(*(*store)->put("registry.example", kConfig));
  }
  ASSERT_TRUE(write_file_atomic(path, as_bytes(R"({"version":2,"registries":{}})")));
  EXPECT_FALSE(CredentialStore::open(path)) << "a newer one's is not overwritten";
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace hydrant::fetch
