// Errors as values: a code that callers branch on, the errno that caused it if any, and a sentence for people.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace hydrant {

// What callers branch on. The edge maps it once: to an errno (`to_errno`), to an exit status (cli/exit_status.h).
enum class Code {
  kOk,
  kInvalid,       // the caller's input is wrong: a malformed reference, an unknown option
  kNotFound,      // the named thing does not exist
  kExists,        // the named thing exists already
  kDenied,        // permission refused, here or at the origin (403)
  kUnauthorized,  // credentials are missing or wrong (401)
  kTooSlow,       // a deadline passed
  kUnreachable,   // nobody answers at the origin: DNS, refused, reset, TLS
  kBusy,          // in use by somebody else
  kNoSpace,       // disk or quota full
  kCorrupt,       // bytes do not match their digest or their format
  kUnsupported,   // well formed, but nothing here can serve it
  kGone,          // the peer or the object went away while we used it
  kCancelled,     // nobody waits for the result any more
  kIo,            // everything else below us
};

std::string_view to_string(Code code);

// The errno a reader or a protocol peer sees for a code. Never EPERM for a network fault.
int to_errno(Code code);

// Cheap to move. Context grows outward (`in`), it is never overwritten.
struct [[nodiscard]] Error {
  Code code = Code::kIo;
  std::string what;    // "GET blobs/sha256:ab… bytes 0-65535: 403"
  int sys = 0;         // errno if one caused it
  bool retry = false;  // decided where the cause is known

  // Prefixes the place: "layer 3: " + what.
  Error&& in(std::string_view where) && {
    what.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }
};

// From errno: picks the code, appends strerror to `what`.
Error sys_error(int err, std::string what);

template <class T = void>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(Code code, std::string what) {
  return tl::unexpected<Error>(Error{.code = code, .what = std::move(what)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }
inline tl::unexpected<Error> fail_sys(int err, std::string what) {
  return tl::unexpected<Error>(sys_error(err, std::move(what)));
}

}  // namespace hydrant

#define HYDRANT_CONCAT_(a, b) a##b
#define HYDRANT_CONCAT(a, b) HYDRANT_CONCAT_(a, b)

// HYDRANT_TRY(auto x, expr): declares or assigns x from the Result, or returns its error.
#define HYDRANT_TRY(lhs, ...) HYDRANT_TRY_(HYDRANT_CONCAT(hydrant_try_, __LINE__), lhs, __VA_ARGS__)
#define HYDRANT_TRY_(tmp, lhs, ...)                                          \
  auto tmp = (__VA_ARGS__);                                                  \
  if (!tmp) return tl::unexpected<::hydrant::Error>(std::move(tmp).error()); \
  lhs = *std::move(tmp)

// HYDRANT_TRY_VOID(expr): returns its error, drops its value.
#define HYDRANT_TRY_VOID(...)                                                                                \
  do {                                                                                                       \
    auto hydrant_try_result = (__VA_ARGS__);                                                                 \
    if (!hydrant_try_result) return tl::unexpected<::hydrant::Error>(std::move(hydrant_try_result).error()); \
  } while (0)
