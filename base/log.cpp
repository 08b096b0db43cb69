#include "base/log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>

namespace hydrant::log {

namespace {

Level initial_level() {
  const char* text = std::getenv("HYDRANT_LOG");
  std::string_view wanted = text ? text : "";
  if (wanted == "debug") return Level::kDebug;
  if (wanted == "warn") return Level::kWarn;
  if (wanted == "error") return Level::kError;
  return Level::kInfo;
}

// Relaxed: a late change of level may miss a line, nothing else depends on it.
std::atomic<Level> g_level{initial_level()};

void append_value(std::string& line, std::string_view value) {
  bool plain = !value.empty();
  for (char c : value) plain = plain && c > ' ' && c != '"' && c != '=' && c != 0x7f;
  if (plain) {
    line += value;
    return;
  }
  line += '"';
  for (char c : value) {
    if (c == '"' || c == '\\') line += '\\';
    if (c == '\n')
      line += "\\n";
    else if (static_cast<unsigned char>(c) < ' ')
      line += '?';
    else
      line += c;
  }
  line += '"';
}

}  // namespace

void set_level(Level level) { g_level.store(level, std::memory_order_relaxed); }
Level level() { return g_level.load(std::memory_order_relaxed); }

void write(Level level, std::string_view event, std::span<const Field> fields) {
  if (level < log::level()) return;
  static constexpr std::string_view kNames[] = {"debug", "info", "warn", "error"};
  auto now = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
  std::string line = fmt::format("{:%FT%T}Z {} {}", now, kNames[static_cast<int>(level)], event);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  line += '\n';
  // A reader of the pipe that stopped reading must not stop the one who answers the kernel.
  pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT)) [[maybe_unused]]
    auto n = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace hydrant::log
