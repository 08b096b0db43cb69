// exec and posix_spawn: the device is there for whatever is executed, as the kernel's would be. fork and vfork need
// nothing, for nothing here is a process's own.
#include <alloca.h>
#include <spawn.h>
#include <unistd.h>

#include <cstdarg>

#include "shim/environment.h"
#include "shim/interpose.h"
#include "shim/real.h"

namespace {

using namespace hydrant::shim;

HYDRANT_REAL(execve);
HYDRANT_REAL(execvpe);
HYDRANT_REAL(execveat);
HYDRANT_REAL(fexecve);
HYDRANT_REAL(posix_spawn);
HYDRANT_REAL(posix_spawnp);

template <class Call>
int executed(char* const* environment, Call call) {
  return with_environment(
      environment, [](char* const* all, void* context) { return (*static_cast<Call*>(context))(all); }, &call);
}

// The words of an execl… up to its null, and where it ended.
#define HYDRANT_WORDS(words, first, arguments)                                        \
  size_t count = 0;                                                                   \
  va_list counting;                                                                   \
  va_copy(counting, arguments);                                                       \
  for (const char* word = first; word; word = va_arg(counting, const char*)) ++count; \
  va_end(counting);                                                                   \
  auto** words = static_cast<char**>(alloca((count + 1) * sizeof(char*)));            \
  words[0] = const_cast<char*>(first);                                                \
  for (size_t i = 1; i <= count; ++i) words[i] = va_arg(arguments, char*)

}  // namespace

HYDRANT_INTERPOSE(int, execve, (const char* path, char* const* words, char* const* environment)) {
  return executed(environment, [&](char* const* all) { return real_execve(path, words, all); });
}

HYDRANT_INTERPOSE(int, execv, (const char* path, char* const* words)) {
  return interposed_execve(path, words, environ);
}

HYDRANT_INTERPOSE(int, execvpe, (const char* file, char* const* words, char* const* environment)) {
  return executed(environment, [&](char* const* all) { return real_execvpe(file, words, all); });
}

HYDRANT_INTERPOSE(int, execvp, (const char* file, char* const* words)) {
  return interposed_execvpe(file, words, environ);
}

HYDRANT_INTERPOSE(int, fexecve, (int fd, char* const* words, char* const* environment)) {
  return executed(environment, [&](char* const* all) { return real_fexecve(fd, words, all); });
}

HYDRANT_INTERPOSE(int, execveat,
                  (int directory, const char* path, char* const* words, char* const* environment, int flags)) {
  return executed(environment, [&](char* const* all) { return real_execveat(directory, path, words, all, flags); });
}

HYDRANT_INTERPOSE(int, execl, (const char* path, const char* first, ...)) {
  va_list arguments;
  va_start(arguments, first);
  HYDRANT_WORDS(words, first, arguments);
  va_end(arguments);
  return interposed_execve(path, words, environ);
}

HYDRANT_INTERPOSE(int, execlp, (const char* file, const char* first, ...)) {
  va_list arguments;
  va_start(arguments, first);
  HYDRANT_WORDS(words, first, arguments);
  va_end(arguments);
  return interposed_execvpe(file, words, environ);
}

HYDRANT_INTERPOSE(int, execle, (const char* path, const char* first, ...)) {
  va_list arguments;
  va_start(arguments, first);
  HYDRANT_WORDS(words, first, arguments);
  auto** environment = va_arg(arguments, char**);
  va_end(arguments);
  return interposed_execve(path, words, environment);
}

HYDRANT_INTERPOSE(int, posix_spawn,
                  (pid_t * pid, const char* path, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* words, char* const* environment)) {
  return executed(environment,
                  [&](char* const* all) { return real_posix_spawn(pid, path, actions, attributes, words, all); });
}

HYDRANT_INTERPOSE(int, posix_spawnp,
                  (pid_t * pid, const char* file, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* words, char* const* environment)) {
  return executed(environment,
                  [&](char* const* all) { return real_posix_spawnp(pid, file, actions, attributes, words, all); });
}
