// Runs docker's credential helpers: `docker-credential-X get`, the server's name on standard input, JSON on standard
// output.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "source/auth/docker_config.h"

namespace hydrant::source {

// Looks `docker-credential-<helper>` up in PATH. Ends, with everything it started, after 10 s or at the deadline:
// kTooSlow. A helper that knows no credentials for `server` yields empty ones; kNotFound: no such program; kIo: it
// failed, with what it said.
Result<Credentials> run_credential_helper(const std::string& helper, const std::string& server, Deadline deadline);

}  // namespace hydrant::source
