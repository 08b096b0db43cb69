#include "tests/oracle/engine_machine.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "proto/cachefiles_message.h"
#include "tests/oracle/blob.h"
#include "tests/oracle/root.h"

namespace hydrant::oracle {
using namespace cachefiles;
namespace {

EngineOptions kernel_like(Disk* disk) {
  EngineOptions options;
  options.naming = Naming::kAtCommit;
  options.presence = Presence::kSparse;
  options.maintenance_interval = std::chrono::hours(1);
  options.discard_after = std::chrono::hours(1);
  options.disk = disk;
  return options;
}

// The state of each other thread of this process, to be read again and again.
std::vector<Fd> thread_states() {
  std::vector<Fd> out;
  for (auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    if (task.path().filename() != std::to_string(::getpid()))
      out.emplace_back(::open((task.path() / "stat").c_str(), O_RDONLY | O_CLOEXEC));
  return out;
}

bool sleeps(const Fd& state) {
  char text[128];
  ssize_t got = ::pread(state.get(), text, sizeof text, 0);
  if (got <= 0) return true;  // it ended
  auto name_end = std::string_view(text, static_cast<size_t>(got)).rfind(')');
  return name_end != std::string_view::npos && text[name_end + 2] == 'S';
}

bool looks_up(const Cookie& cookie) { return cookie.state() == 'L' || cookie.state() == 'C'; }

}  // namespace

int ScriptDisk::statfs(int fd, struct statfs* out) {
  if (int err = Disk::statfs(fd, out)) return err;
  unsigned percent = free_percent;
  out->f_bsize = 4096;
  out->f_blocks = kDiskBlocks;
  out->f_bavail = out->f_bfree = percent < 100 ? kDiskBlocks * percent / 100 : kDiskBlocks * 9 / 10;
  out->f_files = kDiskFiles;
  out->f_ffree = kDiskFiles / 2;
  return 0;
}

EngineMachine::EngineMachine(std::string root)
    : root_(std::move(root)), engine_(Engine::create(kernel_like(&disk_))), threads_(thread_states()) {}

EngineMachine::~EngineMachine() {
  set_error_injection(0);
  for (auto& channel : channels_) channel.reset();
  handles_.clear();
  for (auto& [name, waiting] : waiting_)
    if (waiting.wait) waiting.wait->cancel();
  settle();
  waiting_.clear();
  mounts_.clear();
  domains_.clear();
  engine_.reset();
}

int EngineMachine::open(int channel) {
  std::shared_ptr<Channel> opened;
  int err = engine_->open_channel({}, &opened);
  if (!err) channels_[channel] = std::move(opened);
  return err;
}

int64_t EngineMachine::write(int channel, const std::string& text) {
  Caller caller;
  if (directory_) caller.cwd = directory_.get();
  return channels_[channel]->write(hydrant::as_bytes(text), caller);
}

int64_t EngineMachine::read(int channel, size_t size, std::string* message, bool bad_address) {
  bad_address_ = bad_address;
  message_.clear();
  int64_t got = channels_[channel]->read(size, *this);
  *message = message_;
  return got;
}

int EngineMachine::reserve_fd() { return table_full_ ? -EMFILE : 100 + static_cast<int>(handles_.size()); }

bool EngineMachine::deliver(Bytes message, std::shared_ptr<Handle> handle, int) {
  if (bad_address_) return false;
  message_ = as_text(message);
  if (handle) handles_.push_back(std::move(handle));
  return true;
}

int64_t EngineMachine::handle_pwrite(size_t handle, const std::string& bytes, uint64_t offset) {
  return handles_[handle] ? handles_[handle]->pwrite(hydrant::as_bytes(bytes), offset) : -EBADF;
}
int64_t EngineMachine::handle_write(size_t handle, const std::string& bytes) {
  return handles_[handle] ? handles_[handle]->write(hydrant::as_bytes(bytes)) : -EBADF;
}
int64_t EngineMachine::handle_seek(size_t handle, int64_t offset, int whence) {
  return handles_[handle] ? handles_[handle]->lseek(offset, whence) : -EBADF;
}
int EngineMachine::handle_ioctl(size_t handle, unsigned number, uint64_t argument) {
  return handles_[handle] ? handles_[handle]->ioctl(number, argument) : -EBADF;
}

int EngineMachine::change_directory(const std::string& path) {
  Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return -errno;
  directory_ = std::move(fd);
  return 0;
}

void EngineMachine::settle() {
  do {
    // A thread that is to wake is runnable at once, so two looks that find all of them asleep are enough.
    for (int calm = 0; calm < 2;) {
      ::sched_yield();
      calm = std::all_of(threads_.begin(), threads_.end(), sleeps) ? calm + 1 : 0;
    }
  } while (go_on());
}

std::shared_ptr<Cookie> EngineMachine::use_cookie(Domain& domain, const std::string& key) {
  if (auto shared = domain.cookies[key].lock()) return shared;
  auto cookie = engine_->acquire_cookie(domain.volume, hydrant::as_bytes(key));
  if (!cookie) return nullptr;
  (*cookie)->use([](int) {});
  domain.cookies[key] = *cookie;
  return *cookie;
}

// The superblock is one page, read once. The rest is in the kernel's page cache then.
void EngineMachine::mount(const std::string& name, const MountOptions& options) {
  Mount& mount = mounts_[name];
  mount.fsid = options.fsid;
  mount.wanted_devices = options.devices;
  if (!options.domain.empty()) mount.domain = domains_[options.domain].lock();
  if (!mount.domain) {
    auto volume = engine_->acquire_volume("erofs," + (options.domain.empty() ? options.fsid : options.domain));
    if (!volume) {
      outcomes_[name] = "-EBUSY";
      return;
    }
    mount.domain = std::make_shared<Domain>(Domain{*volume, {}});
    if (!options.domain.empty()) domains_[options.domain] = mount.domain;
  }
  if (mount.domain->cookies[options.fsid].lock()) {
    outcomes_[name] = "-EEXIST";
    mount = {};
    return;
  }
  auto cookie = use_cookie(*mount.domain, options.fsid);
  if (!cookie) {
    outcomes_[name] = "-EBUSY";
    mount = {};
    return;
  }
  mount.cookies.push_back(cookie);
  Waiting& waiting = waiting_[name];
  waiting.cookie = cookie;
  waiting.range = {0, kPage};
  waiting.expected = blob_bytes(options.fsid, 0, kPage);
  waiting.is_mount = true;
  ask(waiting);
}

void EngineMachine::start_read(const std::string& name, const ReadOptions& options) {
  auto mount = mounts_.find(options.mount);
  if (mount == mounts_.end() || !mount->second.mounted || options.device >= mount->second.cookies.size()) {
    outcomes_[name] = "-ENOENT";
    return;
  }
  auto& cookies = mount->second.cookies;
  Waiting& waiting = waiting_[name];
  waiting.cookie = cookies[options.device];
  uint64_t base = options.device ? 0 : kPage;
  waiting.range = {base + options.offset, base + options.offset + options.size};
  waiting.expected = options.device
                         ? blob_bytes(devices_of(mount->second.fsid)[options.device - 1], options.offset, options.size)
                         : blob_bytes(mount->second.fsid, base + options.offset, options.size);
  waiting.mount = options.mount;
  waiting.tries = options.by_page ? 2 : 1;
  ask(waiting);
}

void EngineMachine::ask(Waiting& waiting) {
  --waiting.tries;
  waiting.result = std::make_shared<std::optional<int>>();
  if (!looks_up(*waiting.cookie) && waiting.cookie->state() != 'A') {  // no operation begins
    *waiting.result = -ENOBUFS;
    return;
  }
  waiting.wait = waiting.cookie->ensure(waiting.range, [this, result = waiting.result](int value) {
    std::lock_guard lock(mutex_);
    *result = value;
  });
}

// A killed reader that waits for a lookup goes on to its READ, which the signal then ends.
void EngineMachine::kill(const std::string& name) {
  if (auto found = waiting_.find(name); found != waiting_.end()) found->second.killed = true;
}

bool EngineMachine::go_on() {
  bool moved = false;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    auto& [name, waiting] = *at;
    std::optional<int> result;
    {
      std::lock_guard lock(mutex_);
      result = *waiting.result;
    }
    if (!result) {
      if (waiting.killed && waiting.wait && !looks_up(*waiting.cookie)) {
        waiting.wait->cancel();
        moved = true;
      }
      ++at;
      continue;
    }
    moved = true;
    if (*result != 0 && waiting.tries > 0) {
      ask(waiting);
      ++at;
      continue;
    }
    auto done = waiting_.extract(at++);
    finish(done.key(), done.mapped(), *result);
  }
  return moved;
}

void EngineMachine::finish(const std::string& name, Waiting& waiting, int result) {
  if (result == 0) {
    std::string got(waiting.expected.size(), 0);
    int64_t size = waiting.cookie->read(std::as_writable_bytes(std::span(got.data(), got.size())), waiting.range.begin);
    if (size < 0) result = -EIO;
    if (size >= 0 && got != waiting.expected) result = waiting.is_mount ? -EINVAL : -EBADMSG;
  }
  if (waiting.is_mount) finish_mount(name, waiting, result);
  outcomes_.emplace(name, waiting.killed ? "killed" : result == -EBADMSG ? "WRONG BYTES" : errno_text(result));
}

void EngineMachine::finish_mount(const std::string& name, Waiting& waiting, int result) {
  Mount& mount = mounts_[name];
  auto devices = devices_of(mount.fsid);
  if (!mount.wanted_devices.empty() && result == 0) {
    if (mount.wanted_devices.size() != devices.size()) {
      result = -EINVAL;
      outcomes_[name] = waiting.killed ? "killed" : "-EINVAL";
    }
    devices = mount.wanted_devices;
  }
  waiting.cookie.reset();
  if (result != 0) {
    mount = {};
    return;
  }
  // Nobody waits for a device's OPEN but its readers.
  for (auto& device : devices)
    if (auto cookie = use_cookie(*mount.domain, device)) mount.cookies.push_back(cookie);
  mount.mounted = true;
}

bool EngineMachine::busy(const std::string& mount) const {
  for (auto& [name, waiting] : waiting_)
    if (waiting.mount == mount) return true;
  return false;
}

void EngineMachine::umount(const std::string& name, const std::string& mount) {
  auto found = mounts_.find(mount);
  if (found == mounts_.end())
    outcomes_[name] = "-ENOENT";
  else if (!found->second.mounted)
    outcomes_[name] = "-EINVAL";
  else if (busy(mount))
    outcomes_[name] = "-EBUSY";
  else
    found->second = {}, outcomes_[name] = "0";
}

std::optional<std::string> EngineMachine::outcome(const std::string& name) {
  auto found = outcomes_.find(name);
  if (found == outcomes_.end()) return std::nullopt;
  std::string text = found->second;
  outcomes_.erase(found);
  return text;
}

}  // namespace hydrant::oracle
