// What tests of real mounts share: a mount namespace of their own, a scratch directory, waits with deadlines.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>

#include "base/bytes.h"

namespace hydrant::testing {

// Every test program with this file in it lives in a private mount namespace: whatever happens to it, the machine's
// mounts stay as they were. Empty when mounting is possible, else the reason for a skip.
const std::string& why_no_mounts();

// A directory that goes away with the object, mounts inside included.
class ScratchDir {
 public:
  ScratchDir();
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string make(const std::string& name) const;  // a directory below

 private:
  std::string path_;
};

bool eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds limit = std::chrono::milliseconds(10000));

// A child process that runs `body` (async-signal-safe calls only: other threads exist) and exits with its result.
class Child {
 public:
  explicit Child(const std::function<int()>& body);
  ~Child();  // killed and reaped if it still runs
  void kill();
  // Exit status, 128 + signal, or -1 when it does not end in time.
  int wait(std::chrono::milliseconds limit = std::chrono::milliseconds(10000));
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// Deterministic bytes: what stands at `offset` of the stream `seed`.
void oracle_bytes(uint64_t seed, uint64_t offset, MutableBytes out);
Buffer oracle_bytes(uint64_t seed, uint64_t offset, size_t size);

}  // namespace hydrant::testing

#define REQUIRE_MOUNTS() \
  if (!::hydrant::testing::why_no_mounts().empty()) GTEST_SKIP() << "NOT RUN: " << ::hydrant::testing::why_no_mounts()
