#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace hydrant {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::kOk: return "ok";
    case Code::kInvalid: return "invalid";
    case Code::kNotFound: return "not-found";
    case Code::kExists: return "exists";
    case Code::kDenied: return "denied";
    case Code::kUnauthorized: return "unauthorized";
    case Code::kTooSlow: return "too-slow";
    case Code::kUnreachable: return "unreachable";
    case Code::kBusy: return "busy";
    case Code::kNoSpace: return "no-space";
    case Code::kCorrupt: return "corrupt";
    case Code::kUnsupported: return "unsupported";
    case Code::kGone: return "gone";
    case Code::kCancelled: return "cancelled";
    case Code::kIo: return "io";
  }
  return "io";
}

int to_errno(Code code) {
  switch (code) {
    case Code::kOk: return 0;
    case Code::kInvalid: return EINVAL;
    case Code::kNotFound: return ENOENT;
    case Code::kExists: return EEXIST;
    case Code::kDenied: return EACCES;
    case Code::kBusy: return EBUSY;
    case Code::kNoSpace: return ENOSPC;
    case Code::kUnsupported: return EOPNOTSUPP;
    case Code::kCancelled: return EINTR;
    default: return EIO;
  }
}

namespace {

Code code_of(int err) {
  switch (err) {
    case EINVAL:
    case ENAMETOOLONG: return Code::kInvalid;
    case ENOENT:
    case ENOTDIR: return Code::kNotFound;
    case EEXIST: return Code::kExists;
    case EACCES:
    case EPERM: return Code::kDenied;
    case ETIMEDOUT: return Code::kTooSlow;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH: return Code::kUnreachable;
    case EBUSY: return Code::kBusy;
    case ENOSPC:
    case EDQUOT: return Code::kNoSpace;
    case EOPNOTSUPP:
    case ENOSYS: return Code::kUnsupported;
    case EPIPE:
    case ECONNRESET:
    case ESTALE: return Code::kGone;
    case EINTR: return Code::kCancelled;
    default: return Code::kIo;
  }
}

}  // namespace

Error sys_error(int err, std::string what) {
  what += ": ";
  what += std::strerror(err);
  return Error{.code = code_of(err), .what = std::move(what), .sys = err};
}

}  // namespace hydrant
