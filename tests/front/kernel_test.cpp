#include "tests/front/kernel_test.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/mount_info.h"

namespace hydrant::testing {

namespace {

std::string enter_namespace() {
  if (::geteuid() != 0) return "mounting needs root";
  if (::unshare(CLONE_NEWNS)) return std::string("no mount namespace of our own: ") + std::strerror(errno);
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr))
    return std::string("cannot make mounts private: ") + std::strerror(errno);
  if (::access("/dev/fuse", R_OK | W_OK)) return "no /dev/fuse";
  return "";
}

std::string& reason() {
  static std::string text = "main has not run";
  return text;
}

}  // namespace

const std::string& why_no_mounts() { return reason(); }

ScratchDir::ScratchDir() {
  const char* base = std::getenv("TMPDIR");
  path_ = std::string(base ? base : "/var/tmp") + "/hydrant-test-XXXXXX";
  if (!::mkdtemp(path_.data())) ADD_FAILURE() << "mkdtemp " << path_ << ": " << std::strerror(errno);
}

ScratchDir::~ScratchDir() {
  if (auto mounts = read_mounts())
    for (auto at = mounts->rbegin(); at != mounts->rend(); ++at)
      if (at->path.starts_with(path_ + "/")) ::umount2(at->path.c_str(), MNT_DETACH);
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ScratchDir::make(const std::string& name) const {
  std::filesystem::create_directories(path_ + "/" + name);
  return path_ + "/" + name;
}

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

Child::Child(const std::function<int()>& body) : pid_(::fork()) {
  if (pid_ == 0) ::_exit(body());
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Child::kill() { ::kill(pid_, SIGKILL); }

int Child::wait(std::chrono::milliseconds limit) {
  int status = 0;
  if (!eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, limit)) return -1;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void oracle_bytes(uint64_t seed, uint64_t offset, MutableBytes out) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint64_t at = offset + i;
    uint64_t x = (at / 8 + 1) * 0x9e3779b97f4a7c15 ^ seed * 0xd1342543de82ef95;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 32;
    out[i] = std::byte(x >> (at % 8 * 8));
  }
}

Buffer oracle_bytes(uint64_t seed, uint64_t offset, size_t size) {
  Buffer out(size);
  oracle_bytes(seed, offset, out);
  return out;
}

}  // namespace hydrant::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // Before any thread exists: a namespace belongs to the thread that enters it and to those it starts.
  hydrant::testing::reason() = hydrant::testing::enter_namespace();
  return RUN_ALL_TESTS();
}
