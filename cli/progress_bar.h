// One line on a terminal that is drawn over and over; nothing at all elsewhere.
#pragma once

#include <string>

#include "base/clock.h"
#include "proto/admin.h"

namespace hydrant::cli {

class ProgressBar {
 public:
  // Draws on standard error when that is a terminal and `wanted`.
  explicit ProgressBar(bool wanted);
  ~ProgressBar();  // wipes the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(const proto::Progress& progress);

 private:
  bool active_;
  bool drawn_ = false;
  Instant next_{};
};

// "stream   [#####.....]  52 %  41.2 MB of 79.0 MB, 6 layers", at most `width` columns.
std::string progress_line(const proto::Progress& progress, size_t width);

// "79.0 MB": powers of ten, as registries and disks are sold.
std::string human_size(uint64_t bytes);

}  // namespace hydrant::cli
