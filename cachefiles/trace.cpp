#include "cachefiles/trace.h"

#include <mutex>
#include <vector>

#include "base/log.h"

namespace hydrant::cachefiles::trace {
namespace {

constexpr size_t kPoints = size_t(Point::kCount);
constexpr std::array<std::string_view, kPoints> kNames = {
    "ref",
    "lookup",
    "mkdir",
    "tmpfile",
    "link",
    "unlink",
    "rename",
    "coherency",
    "vol_coherency",
    "prep_read",
    "read",
    "write",
    "trunc",
    "mark_active",
    "mark_failed",
    "mark_inactive",
    "vfs_error",
    "io_error",
    "ondemand_open",
    "ondemand_copen",
    "ondemand_close",
    "ondemand_cread",
    "ondemand_read",
    "ondemand_fd_write",
    "ondemand_fd_release",
    "enter",
    "leave",
};

constexpr uint64_t bit(Point point) { return uint64_t{1} << unsigned(point); }
constexpr uint64_t kSteps = bit(Point::kEnter) | bit(Point::kLeave);
constexpr uint64_t kPointsOnly = (uint64_t{1} << kPoints) - 1 - kSteps;

std::mutex mutex;  // guards the two below; the sum of them is what readers load
uint64_t chosen = 0;
unsigned mask = 0;

void publish(const std::lock_guard<std::mutex>&) {
  uint64_t sum = chosen;
  if (mask & 1) sum |= bit(Point::kEnter);
  if (mask & 2) sum |= bit(Point::kLeave);
  if (mask & 4) sum |= kPointsOnly;
  detail::enabled.store(sum, std::memory_order_relaxed);
}

}  // namespace

std::string_view to_string(Point point) { return kNames[size_t(point)]; }

void write(Point point, std::initializer_list<Field> fields) {
  std::vector<log::Field> out;
  out.reserve(fields.size());
  for (const Field& field : fields)
    out.push_back(field.is_text ? log::Field(field.key, field.text) : log::Field(field.key, field.number));
  log::write(log::Level::kInfo, "cachefiles.trace." + std::string(to_string(point)), out);
}

Result<> select(std::string_view names) {
  uint64_t next = 0;
  while (!names.empty()) {
    size_t comma = names.find(',');
    std::string_view name = names.substr(0, comma);
    names = comma == names.npos ? std::string_view{} : names.substr(comma + 1);
    if (name == "none") continue;
    uint64_t found = name == "all" ? kPointsOnly : 0;
    for (size_t i = 0; i < kPoints; ++i)
      if (kNames[i] == name) found = uint64_t{1} << i;
    for (size_t i = 0; i < kPoints && !name.empty() && !found; ++i)
      if (kNames[i].starts_with(name) && kNames[i][name.size()] == '_')
        for (size_t j = i; j < kPoints; ++j)
          if (kNames[j].starts_with(name)) found |= uint64_t{1} << j;
    if (!found) return fail(Code::kInvalid, "no trace point " + std::string(name));
    next |= found;
  }
  std::lock_guard lock(mutex);
  chosen = next;
  publish(lock);
  return {};
}

std::string selected() {
  std::string out;
  for (size_t i = 0; i < kPoints; ++i)
    if (on(Point(i))) out += (out.empty() ? "" : ",") + std::string(kNames[i]);
  return out.empty() ? "none" : out;
}

void set_debug_mask(unsigned value) {
  std::lock_guard lock(mutex);
  mask = value;
  publish(lock);
}

unsigned debug_mask() {
  std::lock_guard lock(mutex);
  return mask;
}

}  // namespace hydrant::cachefiles::trace
