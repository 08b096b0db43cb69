// Our side: the engine in this process, and EROFS over fscache as its consumer, played.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "cachefiles/disk.h"
#include "cachefiles/engine.h"
#include "tests/oracle/machine.h"

namespace hydrant::oracle {

// The guest's disk: its totals, and as much free space as the script says.
class ScriptDisk final : public cachefiles::Disk {
 public:
  int statfs(int fd, struct statfs* out) override;
  std::atomic<unsigned> free_percent{100};
};

class EngineMachine final : public Machine, private cachefiles::Receiver {
 public:
  explicit EngineMachine(std::string root);
  ~EngineMachine() override;

  int open(int channel) override;
  void close(int channel) override { channels_[channel].reset(); }
  bool is_open(int channel) override { return channels_[channel] != nullptr; }
  int64_t write(int channel, const std::string& text) override;
  int64_t read(int channel, size_t size, std::string* message, bool bad_address) override;
  unsigned poll(int channel) override { return channels_[channel]->poll(); }
  size_t handles() override { return handles_.size(); }
  int64_t handle_pwrite(size_t handle, const std::string& bytes, uint64_t offset) override;
  int64_t handle_write(size_t handle, const std::string& bytes) override;
  int64_t handle_read(size_t) override { return -EBADF; }
  int64_t handle_seek(size_t handle, int64_t offset, int whence) override;
  int handle_ioctl(size_t handle, unsigned number, uint64_t argument) override;
  void handle_close(size_t handle) override { handles_[handle].reset(); }
  void handle_dup(size_t handle) override { handles_.push_back(handles_[handle]); }
  void refuse_descriptors(bool refuse) override { table_full_ = refuse; }
  const std::string& root() override { return root_; }
  int change_directory(const std::string& path) override;
  void set_free_percent(unsigned percent) override { disk_.free_percent = percent; }
  void inject(unsigned mask) override { cachefiles::set_error_injection(mask); }
  void mount(const std::string& name, const MountOptions& options) override;
  void umount(const std::string& name, const std::string& mount) override;
  void start_read(const std::string& name, const ReadOptions& options) override;
  void kill(const std::string& name) override;
  void settle() override;
  std::optional<std::string> outcome(const std::string& name) override;

 private:
  // What the mounts of one domain, or one mount without a domain, share.
  struct Domain {
    std::shared_ptr<cachefiles::Volume> volume;
    std::map<std::string, std::weak_ptr<cachefiles::Cookie>> cookies;
  };
  struct Mount {
    std::string fsid;
    std::vector<std::string> wanted_devices;
    std::shared_ptr<Domain> domain;
    std::vector<std::shared_ptr<cachefiles::Cookie>> cookies;  // the image, then its devices
    bool mounted = false;
  };
  // A read that waits in the engine. Its callback says so from another thread, under mutex_.
  struct Waiting {
    std::shared_ptr<cachefiles::Cookie> cookie;
    std::shared_ptr<cachefiles::Cookie::Wait> wait;
    ByteRange range;
    std::string expected;
    std::string mount;
    bool is_mount = false;
    int tries = 1;
    bool killed = false;
    std::shared_ptr<std::optional<int>> result;
  };

  int reserve_fd() override;
  bool deliver(Bytes message, std::shared_ptr<cachefiles::Handle> handle, int fd) override;

  std::shared_ptr<cachefiles::Cookie> use_cookie(Domain& domain, const std::string& key);
  void ask(Waiting& waiting);
  bool go_on();  // false when nothing happened
  void finish(const std::string& name, Waiting& waiting, int result);
  void finish_mount(const std::string& name, Waiting& waiting, int result);
  bool busy(const std::string& mount) const;

  const std::string root_;
  Fd directory_;
  ScriptDisk disk_;
  std::unique_ptr<cachefiles::Engine> engine_;
  std::vector<Fd> threads_;  // the engine's, by what says whether they sleep
  std::shared_ptr<cachefiles::Channel> channels_[2];
  std::vector<std::shared_ptr<cachefiles::Handle>> handles_;
  std::string message_;
  bool table_full_ = false, bad_address_ = false;

  std::map<std::string, std::weak_ptr<Domain>> domains_;
  std::map<std::string, Mount> mounts_;
  std::map<std::string, Waiting> waiting_;
  std::map<std::string, std::string> outcomes_;
  std::mutex mutex_;
};

}  // namespace hydrant::oracle
