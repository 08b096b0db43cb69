#include "daemon/keeper/descriptors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace hydrant::daemon::keeper {

std::optional<Duration> parse_hold(std::string_view text) {
  constexpr int kLongest = 3600;
  int seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 1 || seconds > kLongest)
    return std::nullopt;
  return std::chrono::seconds(seconds);
}

Notice parse_notice(std::string_view text) {
  Notice notice;
  bool store = false, remove = false, ready = false;
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line == "READY=1") ready = true;
    if (line == "FDSTORE=1") store = true;
    if (line == "FDSTOREREMOVE=1") remove = true;
    if (line.substr(0, 7) == "FDNAME=") notice.name = line.substr(7);
  }
  bool named = !notice.name.empty() && notice.name.size() <= kMaxName &&
               notice.name.find_first_of(std::string_view(":\0", 2)) == notice.name.npos;
  if (ready)
    notice.kind = Notice::Kind::kReady;
  else if (named && store)
    notice.kind = Notice::Kind::kStore;
  else if (named && remove)
    notice.kind = Notice::Kind::kRemove;
  return notice;
}

void Descriptors::store(std::string_view name, int fd) {
  remove(name);
  if (count_ == kMaxDescriptors || name.size() > kMaxName) {
    ::close(fd);
    return;
  }
  Entry& entry = entries_[count_++];
  std::memcpy(entry.name, name.data(), name.size());
  entry.name[name.size()] = 0;
  entry.fd = fd;
}

void Descriptors::remove(std::string_view name) {
  for (size_t i = 0; i < count_; ++i) {
    if (name != entries_[i].name) continue;
    ::close(entries_[i].fd);
    entries_[i] = entries_[--count_];
    return;
  }
}

bool Descriptors::begins(const Entry& entry, std::string_view prefix) {
  return !prefix.empty() && std::string_view(entry.name).substr(0, prefix.size()) == prefix;
}

void Descriptors::clear(std::string_view spared) {
  for (size_t i = 0; i < count_;) {
    if (begins(entries_[i], spared)) {
      ++i;
      continue;
    }
    ::close(entries_[i].fd);
    entries_[i] = entries_[--count_];
  }
}

size_t Descriptors::count(std::string_view spared) const {
  return size_t(std::count_if(entries_, entries_ + count_, [&](auto& each) { return !begins(each, spared); }));
}

int Descriptors::find(std::string_view name) const {
  auto end = entries_ + count_, at = std::find_if(entries_, end, [&](auto&each) { return name == each.name; });
  return at == end ? -1 : at->fd;
}

const char* Descriptors::hand_down(char (&names)[kMaxDescriptors * (kMaxName + 1) + 1]) const {
  // Out of the way first, so that no dup2 closes one that is still to be moved. In a child that does not survive a
  // failure of this: hydrantd would miss a number and say so.
  int moved[kMaxDescriptors];
  char* at = names;
  for (size_t i = 0; i < count_; ++i) moved[i] = ::fcntl(entries_[i].fd, F_DUPFD_CLOEXEC, 3 + int(kMaxDescriptors));
  for (size_t i = 0; i < count_; ++i) {
    ::dup2(moved[i], 3 + int(i));
    if (i) *at++ = ':';
    size_t size = std::strlen(entries_[i].name);
    std::memcpy(at, entries_[i].name, size);
    at += size;
  }
  *at = 0;
  return names;
}

}  // namespace hydrant::daemon::keeper
