#include "tests/oracle/session.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/oracle/blob.h"
#include "tests/oracle/root.h"
#include "tests/oracle/script.h"

namespace hydrant::oracle {
namespace fs = std::filesystem;
namespace {

constexpr size_t kRoomyBuffer = 1024;
constexpr unsigned kReadComplete = 0x40049801;

uint32_t u32(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  if (at + 4 <= bytes.size()) std::memcpy(&value, bytes.data() + at, 4);
  return value;
}
uint64_t u64(const std::string& bytes, size_t at) { return u32(bytes, at) | uint64_t{u32(bytes, at + 4)} << 32; }
uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 0); }

}  // namespace

std::string errno_text(int64_t result) {
  if (result >= 0) return std::to_string(result);
  const char* name = ::strerrorname_np(static_cast<int>(-result));
  return name ? std::string("-") + name : std::to_string(result);
}

std::string Session::run(const std::string& step) {
  std::istringstream in(step);
  Words words;
  for (std::string word; in >> word;) words.push_back(word);
  auto space = step.find(' ');
  std::string result = perform(words, space == step.npos ? "" : step.substr(space + 1));
  machine_.settle();
  if (machine_.is_open(0)) {
    unsigned mask = machine_.poll(0);
    result += std::string(" p=") + (mask & EPOLLIN ? "I" : "") + (mask & EPOLLOUT ? "O" : "");
    if (mask & ~unsigned{EPOLLIN | EPOLLOUT}) result += "?" + std::to_string(mask);
  }
  for (auto at = running_.begin(); at != running_.end();) {
    auto outcome = machine_.outcome(*at);
    if (outcome == "-ENOBUFS") outcome = "-EIO";  // a consumer's error depends on where its file system met it
    if (outcome) result += " " + *at + "=" + *outcome;
    at = outcome ? running_.erase(at) : std::next(at);
  }
  return result;
}

std::string Session::with_root(std::string text) {
  for (size_t at; (at = text.find("$D")) != text.npos;) text.replace(at, 2, machine_.root());
  return text;
}

std::string Session::perform(const Words& words, const std::string& rest) {
  const std::string& verb = words.at(0);
  auto word = [&](size_t i) { return i < words.size() ? words[i] : std::string(); };
  if (verb == "open") return errno_text(machine_.open(0));
  if (verb == "open2") return errno_text(machine_.open(1));
  if (verb == "mount" || verb == "umount" || verb == "C" || verb == "page" || verb == "kill")
    return consumer_step(words);
  if (verb == "nofds") return machine_.refuse_descriptors(word(1) == "on"), "-";
  if (verb == "inject") return machine_.inject(unsigned(number(word(1)))), "-";
  if (verb == "free") return machine_.set_free_percent(unsigned(number(word(1)))), "-";
  if (verb == "cd") return errno_text(machine_.change_directory(with_root(word(1))));
  if (verb == "ls") return list_files();
  if (verb == "mkdir") return fs::create_directories(with_root(word(1))), "-";
  if (verb == "rm") return fs::remove_all(with_root(word(1))), "-";
  if (verb == "touch") return std::ofstream(with_root(word(1)), std::ios::app), "-";
  if (verb == "symlink") return fs::create_symlink(with_root(word(1)), with_root(word(2))), "-";
  if (verb == "poll" || verb == "nop") return "-";
  bool on_handle = verb == "pwrite" || verb == "fdwrite" || verb == "fdread" || verb == "seek" || verb == "cr" ||
                   verb == "ioctl" || verb == "closefd" || verb == "dup";
  if (on_handle) return handle_step(words);

  if (!machine_.is_open(0)) return "closed";
  if (verb == "close") return machine_.close(0), "-";
  if (verb == "read") return read_message(words.size() > 1 ? number(word(1)) : kRoomyBuffer, false, 0);
  if (verb == "readbad") return read_message(kRoomyBuffer, true, 0);
  std::string text = with_root(unescape(rest));
  if (verb == "writelong") {  // a size, then how it begins
    text.erase(0, std::min(text.size(), word(1).size() + 1));
    text.resize(number(word(1)), 'x');
  }
  if (verb == "copen") {
    auto target = id(word(1));
    if (!target) return "noref";
    text = "copen " + *target + rest.substr(std::min(rest.size(), word(1).size() + 1));
  } else if (verb != "write" && verb != "writelong") {
    text = verb + (rest.empty() ? "" : " " + text);  // dir, tag, bind, restore, cull …
  }
  int64_t result = machine_.write(0, text);
  return result == static_cast<int64_t>(text.size()) ? "ok" : errno_text(result);
}

std::string Session::read_message(size_t size, bool bad_address, int channel) {
  std::string message;
  size_t before = machine_.handles();
  int64_t got = machine_.read(channel, size, &message, bad_address);
  if (got <= 0) return errno_text(got);
  std::string text = describe(message);
  if (machine_.handles() > before) {
    handle_key_.resize(before);
    handle_key_.push_back(message.substr(32 + u32(message, 16)));
    handle_of_id_[u32(message, 12)] = before;
  }
  return text;
}

std::string Session::describe(const std::string& message) {
  if (message.compare(0, 5, "cull=") == 0) return message;
  uint32_t opcode = u32(message, 4), object = u32(message, 12);
  std::ostringstream out;
  out << (opcode == 0   ? "OPEN"
          : opcode == 1 ? "CLOSE"
                        : "READ")
      << " id=" << u32(message, 0) << " obj=" << static_cast<int32_t>(object) << " len=" << u32(message, 8);
  if (message.size() != u32(message, 8)) out << " size=" << message.size();
  ids_[opcode == 0 ? 'o' : opcode == 1 ? 'c' : 'r'].push_back(u32(message, 0));
  if (opcode == 0) {
    uint32_t volume = u32(message, 16);
    out << " vks=" << volume << " cks=" << u32(message, 20) << " flags=" << u32(message, 28) << " "
        << message.substr(32, volume - 1) << " " << message.substr(32 + volume);
  } else if (opcode == 2) {
    read_object_ = object;
    out << " " << u64(message, 16) << "+" << u64(message, 24);
  }
  return out.str();
}

std::optional<std::string> Session::id(const std::string& reference) {
  if (reference.empty()) return std::nullopt;
  char kind = reference[0];
  if (kind != 'o' && kind != 'r' && kind != 'c') return reference;
  auto& known = ids_[kind];
  size_t back = number(reference.substr(1));
  if (back >= known.size()) return std::nullopt;
  return std::to_string(known[known.size() - 1 - back]);
}

std::optional<size_t> Session::handle(const std::string& reference) {
  if (reference == "hr") {
    auto found = handle_of_id_.find(read_object_);
    return found == handle_of_id_.end() ? std::nullopt : std::optional(found->second);
  }
  size_t back = number(reference.substr(1));
  if (reference[0] != 'h' || back >= handle_key_.size()) return std::nullopt;
  return handle_key_.size() - 1 - back;
}

std::string Session::handle_step(const Words& words) {
  auto word = [&](size_t i) { return i < words.size() ? words[i] : std::string(); };
  auto h = handle(word(1) + (word(1).empty() ? "?" : ""));
  if (!h) return "noref";
  const std::string& verb = words[0];
  if (verb == "pwrite") {
    uint64_t offset = number(word(2));
    return errno_text(machine_.handle_pwrite(*h, blob_bytes(handle_key_[*h], offset, number(word(3))), offset));
  }
  if (verb == "fdwrite") return errno_text(machine_.handle_write(*h, std::string(number(word(2)), 'w')));
  if (verb == "fdread") return errno_text(machine_.handle_read(*h));
  if (verb == "seek") {
    int whence = word(3) == "data"   ? SEEK_DATA
                 : word(3) == "hole" ? SEEK_HOLE
                 : word(3) == "end"  ? SEEK_END
                 : word(3) == "cur"  ? SEEK_CUR
                                     : SEEK_SET;
    return errno_text(machine_.handle_seek(*h, std::strtoll(word(2).c_str(), nullptr, 0), whence));
  }
  if (verb == "ioctl") return errno_text(machine_.handle_ioctl(*h, unsigned(number(word(2))), number(word(3))));
  if (verb == "cr") {
    auto target = id(word(2));
    return target ? errno_text(machine_.handle_ioctl(*h, kReadComplete, number(*target))) : "noref";
  }
  if (verb == "closefd") return machine_.handle_close(*h), "-";
  machine_.handle_dup(*h);
  handle_key_.push_back(handle_key_[*h]);
  return "-";
}

std::string Session::consumer_step(const Words& words) {
  auto word = [&](size_t i) { return i < words.size() ? words[i] : std::string(); };
  const std::string &verb = words[0], name = word(1);
  if (verb == "kill") return running_.contains(name) ? (machine_.kill(name), "-") : "noref";
  if (!used_.insert(name).second) return "noref";
  if (verb == "mount") {
    MountOptions options;
    for (size_t i = 2; i < words.size(); ++i) {
      auto equals = words[i].find('=');
      std::string option = words[i].substr(0, equals), value = words[i].substr(equals + 1);
      if (option == "fsid") options.fsid = value;
      if (option == "domain") options.domain = value;
      if (option == "device") options.devices.push_back(value);
    }
    machine_.mount(name, options);
  } else if (verb == "umount") {
    machine_.umount(name, word(2));
  } else {
    ReadOptions options;
    auto dot = word(2).find('.');
    options.mount = word(2).substr(0, dot);
    options.device = dot == std::string::npos ? 0 : unsigned(number(word(2).substr(dot + 1)));
    options.by_page = verb == "page";
    options.offset = number(word(3));
    options.size = options.by_page ? kPage : number(word(4));
    machine_.start_read(name, options);
  }
  running_.insert(name);
  return "-";
}

// Objects on disk with their lengths.
std::string Session::list_files() {
  std::error_code error;
  auto graves = fs::directory_iterator(machine_.root() + "/graveyard", error);
  std::string out = "graveyard:" + std::to_string(std::distance(graves, fs::directory_iterator()));
  for (auto& [name, path] : object_paths(machine_.root())) {
    auto size = fs::file_size(path, error);
    if (!error) out += " " + name + ":" + std::to_string(size);
  }
  return out;
}

}  // namespace hydrant::oracle
