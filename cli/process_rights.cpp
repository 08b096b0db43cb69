#include "cli/process_rights.h"

#include <fcntl.h>
#include <pwd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "base/file.h"

namespace hydrant::cli {
namespace {

namespace fs = std::filesystem;

// linux/capability.h, by their numbers.
constexpr std::array kCapabilities = {"chown",
                                      "dac_override",
                                      "dac_read_search",
                                      "fowner",
                                      "fsetid",
                                      "kill",
                                      "setgid",
                                      "setuid",
                                      "setpcap",
                                      "linux_immutable",
                                      "net_bind_service",
                                      "net_broadcast",
                                      "net_admin",
                                      "net_raw",
                                      "ipc_lock",
                                      "ipc_owner",
                                      "sys_module",
                                      "sys_rawio",
                                      "sys_chroot",
                                      "sys_ptrace",
                                      "sys_pacct",
                                      "sys_admin",
                                      "sys_boot",
                                      "sys_nice",
                                      "sys_resource",
                                      "sys_time",
                                      "sys_tty_config",
                                      "mknod",
                                      "lease",
                                      "audit_write",
                                      "audit_control",
                                      "setfcap",
                                      "mac_override",
                                      "mac_admin",
                                      "syslog",
                                      "wake_alarm",
                                      "block_suspend",
                                      "audit_read",
                                      "perfmon",
                                      "bpf",
                                      "checkpoint_restore"};

// The value of a line of /proc/PID/status; empty when it has no such line.
std::string field(std::string_view status, const std::string& name) {
  auto at = status.find("\n" + name + ":");
  if (at == status.npos) return {};
  at = status.find_first_not_of(" \t", at + name.size() + 2);
  if (at == status.npos) return {};
  return std::string(status.substr(at, status.find('\n', at) - at));
}

std::string capabilities_of(const std::string& hex) {
  const uint64_t bits = std::strtoull(hex.c_str(), nullptr, 16);
  if (bits == 0) return "none";
  std::string out;
  size_t held = 0;
  for (size_t i = 0; i < kCapabilities.size(); ++i)
    if (bits >> i & 1) {
      ++held;
      out += (out.empty() ? "" : ",") + std::string(kCapabilities[i]);
    }
  // Those that the machine itself has not got are nobody's.
  return held + 2 >= kCapabilities.size() ? "all" : out;
}

bool is_open_for_writing(const fs::path& info) {
  auto text = read_file(info.string(), 64 << 10);
  const auto flags = text ? std::strtol(field("\n" + *text, "flags").c_str(), nullptr, 8) : 0;
  return (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH);
}

std::vector<std::string> open_for_writing(const fs::path& process) {
  std::set<std::string> out;
  std::error_code error;
  for (fs::directory_iterator at(process / "fd", error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    const auto path = fs::read_symlink(at->path(), gone);
    // Pipes, sockets and memory have no path.
    if (gone || !path.is_absolute() || path.native().starts_with("/memfd:")) continue;
    if (!is_open_for_writing(process / "fdinfo" / at->path().filename())) continue;
    out.insert(path.native().starts_with("/dev/") ? path.native() : path.parent_path().native());
  }
  return {out.begin(), out.end()};
}

}  // namespace

ProcessRights parse_rights(std::string_view status) {
  const auto uid = static_cast<uid_t>(std::strtoul(field(status, "Uid").c_str(), nullptr, 10));
  const passwd* user = ::getpwuid(uid);
  const auto mode = field(status, "Seccomp");
  return {.name = {},
          .user = user ? user->pw_name : std::to_string(uid),
          .capabilities = capabilities_of(field(status, "CapEff")),
          .bounding = capabilities_of(field(status, "CapBnd")),
          .no_new_privileges = field(status, "NoNewPrivs") == "1",
          .seccomp = mode == "2"   ? "filter"
                     : mode == "1" ? "strict"
                                   : "off"};
}

std::optional<ProcessRights> rights_of(const std::string& name, int64_t pid) {
  const auto process = fs::path("/proc") / std::to_string(pid);
  auto status = read_file((process / "status").string(), 64 << 10);
  if (!status) return std::nullopt;
  auto out = parse_rights(*status);
  out.name = name;
  out.pid = pid;
  out.open_for_writing = open_for_writing(process);
  return out;
}

}  // namespace hydrant::cli
