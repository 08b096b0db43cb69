// What `hydrant` exits with: one number a cause, so that scripts need not read sentences. Documented in hydrant(1);
// numbers are never reused.
#pragma once

#include "base/error.h"

namespace hydrant::cli {

enum class ExitStatus {
  kOk = 0,
  kIo = 1,             // anything that has no number of its own
  kUsage = 2,          // wrong arguments
  kNotFound = 3,       // no such image, mount, directory
  kDenied = 4,         // refused by the origin or by a daemon
  kUnauthorized = 5,   // credentials missing or wrong
  kUnreachable = 6,    // the origin does not answer
  kBusy = 7,           // mount point in use, files open
  kNoSpace = 8,        // disk full
  kCorrupt = 9,        // bytes do not match their digest or format
  kUnsupported = 10,   // this kernel, file system, image or layer type cannot be served
  kTooSlow = 11,       // a deadline passed
  kGone = 12,          // a daemon went away in the middle
  kExists = 13,        // exists already
  kNotRoot = 14,       // needs root
  kNoDaemon = 15,      // no daemon runs, and none could be started
  kNotServable = 16,   // cachefiles-exec: a program that no library reaches
  kUnhealthy = 17,     // doctor: something is wrong
  kInterrupted = 130,  // Ctrl-C
};

constexpr ExitStatus exit_status(Code code) {
  switch (code) {
    case Code::kOk: return ExitStatus::kOk;
    case Code::kInvalid: return ExitStatus::kUsage;
    case Code::kNotFound: return ExitStatus::kNotFound;
    case Code::kExists: return ExitStatus::kExists;
    case Code::kDenied: return ExitStatus::kDenied;
    case Code::kUnauthorized: return ExitStatus::kUnauthorized;
    case Code::kTooSlow: return ExitStatus::kTooSlow;
    case Code::kUnreachable: return ExitStatus::kUnreachable;
    case Code::kBusy: return ExitStatus::kBusy;
    case Code::kNoSpace: return ExitStatus::kNoSpace;
    case Code::kCorrupt: return ExitStatus::kCorrupt;
    case Code::kUnsupported: return ExitStatus::kUnsupported;
    case Code::kGone: return ExitStatus::kGone;
    case Code::kCancelled: return ExitStatus::kInterrupted;
    case Code::kIo: return ExitStatus::kIo;
  }
  return ExitStatus::kIo;
}

// An error on its way to the terminal. `status` differs from the code's own where only the CLI knows the cause.
struct Failure {
  ExitStatus status;
  std::string what;

  Failure(ExitStatus s, std::string w) : status(s), what(std::move(w)) {}
  Failure(Error error) : status(exit_status(error.code)), what(std::move(error.what)) {}
};

}  // namespace hydrant::cli
