// A descriptor that closes itself. Move-only.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <set>
#include <utility>

namespace hydrant {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  // Moves it when its number is one of these; it stays where it is when nothing above them is free.
  void keep_off(const std::set<int>& numbers) {
    if (!numbers.contains(fd_)) return;
    if (const int moved = ::fcntl(fd_, F_DUPFD_CLOEXEC, *numbers.rbegin() + 1); moved >= 0) reset(moved);
  }
  // A second descriptor of the same open file, close-on-exec; empty when the table is full.
  Fd duplicate() const { return Fd(fd_ < 0 ? -1 : ::fcntl(fd_, F_DUPFD_CLOEXEC, 0)); }

 private:
  int fd_ = -1;
};

}  // namespace hydrant
