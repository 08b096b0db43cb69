// What a script is run on: a kernel with /dev/cachefiles and EROFS over fscache, or our engine in this process.
//
// Results are the system call's: a count, or a negative errno. What a consumer does (a mount, a read, an umount) goes
// on by itself; settle() returns when nothing moves any more, and outcome() then says whether it is over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hydrant::oracle {

struct MountOptions {
  std::string fsid, domain;
  std::vector<std::string> devices;
};

struct ReadOptions {
  std::string mount;
  unsigned device = 0;  // 0: the image itself; n: its n-th device
  uint64_t offset = 0;  // in the file, see blob.h
  uint64_t size = 0;
  bool by_page = false;  // read(2) of one page, tried twice by the page cache; else one readahead of the range
};

class Machine {
 public:
  virtual ~Machine() = default;

  // --- the user daemon. `channel` is 0 or 1, `handle` counts the descriptors received and duplicated.
  virtual int open(int channel) = 0;
  virtual void close(int channel) = 0;
  virtual bool is_open(int channel) = 0;
  virtual int64_t write(int channel, const std::string& text) = 0;
  // An OPEN's descriptor becomes the next handle.
  virtual int64_t read(int channel, size_t size, std::string* message, bool bad_address) = 0;
  virtual unsigned poll(int channel) = 0;
  virtual size_t handles() = 0;
  virtual int64_t handle_pwrite(size_t handle, const std::string& bytes, uint64_t offset) = 0;
  virtual int64_t handle_write(size_t handle, const std::string& bytes) = 0;
  virtual int64_t handle_read(size_t handle) = 0;
  virtual int64_t handle_seek(size_t handle, int64_t offset, int whence) = 0;
  virtual int handle_ioctl(size_t handle, unsigned number, uint64_t argument) = 0;
  virtual void handle_close(size_t handle) = 0;
  virtual void handle_dup(size_t handle) = 0;
  virtual void refuse_descriptors(bool refuse) = 0;

  // --- the operator
  virtual const std::string& root() = 0;  // an empty cache directory
  virtual int change_directory(const std::string& path) = 0;
  virtual void set_free_percent(unsigned percent) = 0;
  virtual void inject(unsigned mask) = 0;

  // --- consumers, each under a name of its own
  virtual void mount(const std::string& name, const MountOptions& options) = 0;
  virtual void umount(const std::string& name, const std::string& mount) = 0;
  virtual void start_read(const std::string& name, const ReadOptions& options) = 0;
  virtual void kill(const std::string& name) = 0;
  virtual void settle() = 0;
  // "0", "-EIO", "killed", "WRONG BYTES"; once.
  virtual std::optional<std::string> outcome(const std::string& name) = 0;
};

std::string errno_text(int64_t result);  // "17", "-EINVAL"

}  // namespace hydrant::oracle
