// System calls that report as the kernel does, a negative errno, and leave the program's errno alone.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace hydrant::shim {

template <class... Argument>
long sys(long number, Argument... argument) {
  int saved = errno;
  long result = ::syscall(number, argument...);
  if (result >= 0) return result;
  result = -errno;
  errno = saved;
  return result;
}

// What an interposed function returns.
inline long to_libc(long result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace hydrant::shim
