#include "base/fs_context.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <cerrno>

namespace hydrant {

Result<FsContext> FsContext::open(const std::string& type) {
  Fd fd(::fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (fd) return FsContext(type, std::move(fd));
  if (errno == ENODEV) return fail(Code::kUnsupported, "this kernel has no file system type " + type);
  if (errno == EPERM) return fail(Code::kDenied, "mounting needs root (CAP_SYS_ADMIN)");
  return fail_sys(errno, "fsopen " + type);
}

Result<> FsContext::set(const std::string& key, const std::string& value) {
  if (::fsconfig(fd_.get(), FSCONFIG_SET_STRING, key.c_str(), value.c_str(), 0)) return fail(refused(errno, key));
  return {};
}

Result<> FsContext::set_flag(const std::string& key) {
  if (::fsconfig(fd_.get(), FSCONFIG_SET_FLAG, key.c_str(), nullptr, 0)) return fail(refused(errno, key));
  return {};
}

Result<Fd> FsContext::create(unsigned attributes) {
  if (::fsconfig(fd_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0)) return fail(refused(errno, "create"));
  Fd mount(::fsmount(fd_.get(), FSMOUNT_CLOEXEC, attributes));
  if (!mount) return fail(refused(errno, "fsmount"));
  return mount;
}

// A context's descriptor yields the kernel's messages, one a read, with a level in front ("e ").
Error FsContext::refused(int err, const std::string& step) {
  Error error = sys_error(err, "mount " + type_ + ": " + step);
  char message[512];
  for (ssize_t n; (n = ::read(fd_.get(), message, sizeof message)) > 0;) {
    std::string_view text(message, static_cast<size_t>(n));
    if (text.size() > 2 && text[1] == ' ') text.remove_prefix(2);
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    error.what += error.what.find(" (kernel: ") == std::string::npos ? " (kernel: " : "; ";
    error.what += text;
  }
  if (error.what.find(" (kernel: ") != std::string::npos) error.what += ")";
  return error;
}

Result<Fd> mount_of_file(const Fd& mount, const std::string& name) {
  Fd file(::openat(mount.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return fail_sys(errno, name);
  Fd clone(::open_tree(file.get(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!clone && errno == EINVAL)
    return fail(Code::kUnsupported, "this kernel mounts no single file (Linux 6.15 does): mount to a directory");
  if (!clone) return fail_sys(errno, "open_tree");
  return clone;
}

Result<> attach_mount(const Fd& mount, const Fd& target) {
  if (::move_mount(mount.get(), "", target.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
    return fail_sys(errno, "move_mount");
  return {};
}

}  // namespace hydrant
