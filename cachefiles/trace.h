// Trace points (spec 10.3): one structured log line each, where the kernel has its trace points, with their fields.
// Switched on by name or by bit 4 of the debug mask; bits 1 and 2 add entry and exit of the engine's main steps. A
// point that is off costs one relaxed load and a branch: no lock, no allocation, no text.
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/error.h"

namespace hydrant::cachefiles::trace {

// The order is that of the names in trace.cpp.
enum class Point : uint8_t {
  kRef,
  kLookup,
  kMkdir,
  kTmpfile,
  kLink,
  kUnlink,
  kRename,
  kCoherency,
  kVolCoherency,
  kPrepRead,
  kRead,
  kWrite,
  kTrunc,
  kMarkActive,
  kMarkFailed,
  kMarkInactive,
  kVfsError,
  kIoError,
  kOpen,
  kCopen,
  kClose,
  kCread,
  kOnDemandRead,
  kFdWrite,
  kFdRelease,
  kEnter,
  kLeave,
  kCount,
};

namespace detail {
inline std::atomic<uint64_t> enabled{0};  // a bit a point; alone, so relaxed
}

inline bool on(Point point) { return detail::enabled.load(std::memory_order_relaxed) >> unsigned(point) & 1; }

// A field: a number or a piece of text that lives as long as the call.
struct Field {
  std::string_view key;
  std::string_view text = {};
  int64_t number = 0;
  bool is_text = false;

  Field(std::string_view k, std::string_view value) : key(k), text(value), is_text(true) {}
  Field(std::string_view k, const char* value) : Field(k, std::string_view(value)) {}
  template <std::integral T>
  Field(std::string_view k, T value) : key(k), number(static_cast<int64_t>(value)) {}
};

void write(Point point, std::initializer_list<Field> fields);

inline void event(Point point, std::initializer_list<Field> fields) {
  if (on(point)) [[unlikely]]
    write(point, fields);
}

// What a call on the backing file system was about; 0 where it was about none.
struct Subject {
  uint32_t object = 0;
  uint64_t inode = 0;
};

// Says that such a call failed, and yields its -errno; 0 is no failure.
inline int vfs_error(const char* operation, int err, Subject subject = {}) {
  if (err) [[unlikely]]
    event(Point::kVfsError,
          {{"object", subject.object}, {"inode", subject.inode}, {"operation", operation}, {"errno", -err}});
  return err;
}

// Entry and exit of a step.
class Step {
 public:
  explicit Step(const char* name) : name_(name) { event(Point::kEnter, {{"step", name_}}); }
  ~Step() { event(Point::kLeave, {{"step", name_}}); }
  Step(const Step&) = delete;

 private:
  const char* name_;
};

std::string_view to_string(Point point);

// "none", "all", or names and groups (a group is the beginning of names, "ondemand" say) with commas between them.
// Replaces what was on, but for what the debug mask switches on. kInvalid for a name that means nothing.
Result<> select(std::string_view names);
// The names that are on, with commas between them, "none" for none.
std::string selected();
// The debug mask (spec 3.3, 10.2).
void set_debug_mask(unsigned mask);
unsigned debug_mask();

}  // namespace hydrant::cachefiles::trace
