// The kernel's side, in the guest: /dev/cachefiles, EROFS mounts below /m, a child process for each consumer.
#pragma once

#include <sys/types.h>

#include <map>

#include "tests/oracle/machine.h"

namespace hydrant::oracle {

// Returns when nothing in the guest has anything to do. It has one processor, a disk in memory and expedited grace
// periods, so what is going on is always runnable.
void settle_kernel();

class KernelMachine final : public Machine {
 public:
  explicit KernelMachine(std::string root) : root_(std::move(root)) {}

  int open(int channel) override;
  void close(int channel) override;
  bool is_open(int channel) override { return channels_[channel] >= 0; }
  int64_t write(int channel, const std::string& text) override;
  int64_t read(int channel, size_t size, std::string* message, bool bad_address) override;
  unsigned poll(int channel) override;
  size_t handles() override { return handles_.size(); }
  int64_t handle_pwrite(size_t handle, const std::string& bytes, uint64_t offset) override;
  int64_t handle_write(size_t handle, const std::string& bytes) override;
  int64_t handle_read(size_t handle) override;
  int64_t handle_seek(size_t handle, int64_t offset, int whence) override;
  int handle_ioctl(size_t handle, unsigned number, uint64_t argument) override;
  void handle_close(size_t handle) override;
  void handle_dup(size_t handle) override;
  void refuse_descriptors(bool refuse) override;
  const std::string& root() override { return root_; }
  int change_directory(const std::string& path) override;
  void set_free_percent(unsigned percent) override;
  void inject(unsigned mask) override;
  void mount(const std::string& name, const MountOptions& options) override;
  void umount(const std::string& name, const std::string& mount) override;
  void start_read(const std::string& name, const ReadOptions& options) override;
  void kill(const std::string& name) override;
  void settle() override;
  std::optional<std::string> outcome(const std::string& name) override;

  // Gives up everything at once; what still waits then waits for ever.
  void abandon();

 private:
  template <class Work>
  void consume(const std::string& name, Work work);

  const std::string root_;
  int channels_[2] = {-1, -1};
  std::vector<int> handles_;
  std::map<std::string, pid_t> consumers_;
  std::map<std::string, std::string> images_;  // mount point name to fsid
};

}  // namespace hydrant::oracle
