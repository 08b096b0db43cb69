#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace hydrant::cli {

std::string human_size(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string progress_line(const proto::Progress& progress, size_t width) {
  constexpr size_t kCells = 24;
  std::string line = fmt::format("{:<8}", progress.phase);
  if (progress.total > 0) {
    double share = std::min(1.0, static_cast<double>(progress.done) / static_cast<double>(progress.total));
    auto full = static_cast<size_t>(share * kCells);
    line += fmt::format(" [{}{}] {:3.0f} %  {} of {}", std::string(full, '#'), std::string(kCells - full, '.'),
                        share * 100, human_size(progress.done), human_size(progress.total));
  }
  if (progress.layers > 0) line += fmt::format(", {} layer{}", progress.layers, progress.layers == 1 ? "" : "s");
  return line.substr(0, width);
}

ProgressBar::ProgressBar(bool wanted) : active_(wanted && ::isatty(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::show(const proto::Progress& progress) {
  if (!active_) return;
  Instant now = Clock::system().now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  winsize size{};
  size_t width = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  std::fputs(("\r\033[K" + progress_line(progress, width)).c_str(), stderr);
  drawn_ = true;
}

}  // namespace hydrant::cli
