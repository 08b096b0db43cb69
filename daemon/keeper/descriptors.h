// What the keeper holds for hydrantd: descriptors by name, given to each life of it, and how long they are held when no
// life begins. The socket speaks sd_notify(3), so hydrantd need not know who holds them.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "daemon/keeper/supervision.h"

namespace hydrant::daemon::keeper {

// Readers wait as long as a hydrantd that lives would let them; then the descriptors are closed and they get EIO.
inline constexpr Duration kHoldLimit = std::chrono::seconds(60);
// What `--hold` says: whole seconds, 1..3600, or nothing that can be understood.
std::optional<Duration> parse_hold(std::string_view text);

// How long descriptors are held without a hydrantd that is ready. No system calls.
class Hold {
 public:
  explicit Hold(Duration limit = kHoldLimit) : limit_(limit) {}
  void lost(Instant now) {
    if (until_ == kNever) until_ = now + limit_;
  }
  void ready() { until_ = kNever; }
  bool over(Instant now) const { return now >= until_; }
  static constexpr Instant kNever = Instant::max();
  Instant until() const { return until_; }

 private:
  Duration limit_;
  Instant until_ = kNever;
};

// One message of hydrantd.
struct Notice {
  enum class Kind { kNone, kReady, kStore, kRemove };
  Kind kind = Kind::kNone;
  std::string_view name{};  // of the descriptor
};
// Anything not understood is kNone.
Notice parse_notice(std::string_view text);

inline constexpr size_t kMaxDescriptors = 16;
inline constexpr size_t kMaxName = 63;

// No allocation. Owned by the keeper's only thread.
class Descriptors {
 public:
  ~Descriptors() { clear(); }

  // Takes the descriptor over, in the place of what has that name; closes it when there is no room.
  void store(std::string_view name, int fd);
  void remove(std::string_view name);
  // But for those whose names begin so; an empty prefix spares none.
  void clear(std::string_view spared = {});
  // The same way.
  size_t count(std::string_view spared = {}) const;
  int find(std::string_view name) const;  // or -1

  // In the child, before exec: puts them at 3, 4, … and yields the list of names. Async-signal-safe.
  const char* hand_down(char (&names)[kMaxDescriptors * (kMaxName + 1) + 1]) const;

 private:
  struct Entry {
    char name[kMaxName + 1];
    int fd;
  };
  static bool begins(const Entry& entry, std::string_view prefix);
  Entry entries_[kMaxDescriptors] = {};
  size_t count_ = 0;
};

}  // namespace hydrant::daemon::keeper
