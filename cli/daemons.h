// Finding the daemons of a root, and starting them when there are none.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/fd.h"
#include "cli/admin_client.h"
#include "cli/exit_status.h"

namespace hydrant::cli {

// A process that stays itself, whatever becomes of its number.
struct RunningProcess {
  pid_t pid = 0;
  Fd handle;  // a pidfd; null: there was no such process

  static RunningProcess of(pid_t pid);
  bool alive() const;
  void signal(int number) const;
};

struct Daemons {
  std::string root;         // absolute
  std::string engine = {};  // the channel socket of an engine that stands elsewhere; its admin socket is beside it

  std::string run_dir() const { return root + "/run"; }
  std::string hydrantd_socket() const { return engine.empty() ? run_dir() + "/hydrantd.sock" : engine + ".admin"; }
  std::string fetchd_socket() const { return run_dir() + "/fetchd.sock"; }

  // Within two seconds. kNotFound or kUnreachable when it does not run.
  Result<AdminClient> hydrantd() const;
  Result<AdminClient> fetchd() const;

  // The root's hydrant-keeper, as its lock says: the number in its file alone may be a stranger's by now.
  std::optional<RunningProcess> keeper() const;

  // The directory of our own executable, where the others stand beside it.
  static Result<std::string> binaries();

  // Both answer, and fetchd is attached to hydrantd. Waits for neither to start.
  Result<> check_ready() const;

  // Starts the keeper beside our own executable unless the daemons are ready, and waits for them, 10 s at most. Two
  // commands at once start one keeper.
  tl::expected<void, Failure> ensure_running() const;

 private:
  tl::expected<void, Failure> start_and_wait(Deadline deadline) const;
};

// "no daemon runs under ROOT…" for errors that mean that, other errors as they are.
Failure explain_absence(const Daemons& daemons, Error error);

}  // namespace hydrant::cli
