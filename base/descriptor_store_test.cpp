#include "base/descriptor_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/fd.h"
#include "base/temporary_directory.h"

namespace hydrant {
namespace {

// As systemd, or the keeper: hears what is sent to a path.
class Holder {
 public:
  explicit Holder(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    ::unlink(path.c_str());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  // The first line of each message so far; descriptors are not taken.
  std::vector<std::string> heard() {
    std::vector<std::string> out;
    char text[512];
    for (ssize_t n = 0; (n = ::recv(socket_.get(), text, sizeof text, 0)) > 0;)
      out.emplace_back(text, std::find(text, text + n, '\n'));
    return out;
  }

 private:
  Fd socket_;
};

TEST(DescriptorStore, AHolderThatCameLaterIsGivenEverythingBeforeItGoes) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/notify";
  auto first = std::make_unique<Holder>(path);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  auto store = DescriptorStore::from_environment();
  EXPECT_TRUE(store.put("one", Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));
  EXPECT_EQ(first->heard(), std::vector<std::string>{"FDSTORE=1"});
  first.reset();
  Holder second(path);
  store.drop();
  EXPECT_EQ(second.heard(), (std::vector<std::string>{"FDSTORE=1", "FDSTOREREMOVE=1"}));
}

TEST(DescriptorStore, WhatItHasLeavesNumbersThatSomebodyElseNeeds) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/notify";
  const Holder holder(path);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  auto store = DescriptorStore::from_environment();
  Fd kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = kept.get();
  store.put("one", std::move(kept));
  store.keep_off({number - 1, number});
  EXPECT_EQ(::fcntl(number - 1, F_GETFD), -1) << "its socket";
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
  EXPECT_TRUE(store.held_elsewhere());
}

}  // namespace
}  // namespace hydrant
