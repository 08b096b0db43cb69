#include "shim/environment.h"

#include <alloca.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace hydrant::shim {
namespace {

constexpr char kSocket[] = "HYDRANT_CACHEFILES_SOCKET=";
constexpr char kPreload[] = "LD_PRELOAD=";
constexpr char kLibrary[] = "libhydrant-cachefiles.so";
constexpr size_t kMostEntries = 16384;  // more are handed on as they are: they would not fit a stack

enum State { kUnread, kReading, kRead };
constinit std::atomic<int> state{kUnread};
constinit char socket_entry[sizeof kSocket + 108];
constinit char preload_entry[4096];

bool begins(const char* text, const char* with) { return std::strncmp(text, with, std::strlen(with)) == 0; }

void copy_entry(char* out, size_t size, const char* entry) {
  if (std::strlen(entry) < size) std::strcpy(out, entry);
}

void read_environment() {
  int expected = kUnread;
  if (!state.compare_exchange_strong(expected, kReading)) {
    while (state.load() != kRead) sched_yield();
    return;
  }
  for (char** entry = environ; entry && *entry; ++entry) {
    if (begins(*entry, kSocket)) copy_entry(socket_entry, sizeof socket_entry, *entry);
    if (begins(*entry, kPreload)) copy_entry(preload_entry, sizeof preload_entry, *entry);
  }
  state.store(kRead);
}

// Before main, while the environment is what we were started with. Reads memory and nothing else.
[[gnu::constructor]] void at_load() { read_environment(); }

}  // namespace

const char* engine_socket() {
  if (state.load(std::memory_order_acquire) != kRead) read_environment();
  return socket_entry[0] ? socket_entry + sizeof kSocket - 1 : "";
}

int with_environment(char* const* environment, Run* run, void* context) {
  if (!engine_socket()[0] || !preload_entry[0]) return run(environment, context);
  size_t count = 0;
  const char* preload = nullptr;
  bool socket = false;
  for (; environment && environment[count]; ++count) {
    if (begins(environment[count], kSocket)) socket = true;
    if (begins(environment[count], kPreload)) preload = environment[count];
  }
  bool preloaded = preload && std::strstr(preload, kLibrary);
  if ((preloaded && socket) || count > kMostEntries) return run(environment, context);

  auto** all = static_cast<char**>(alloca((count + 3) * sizeof(char*)));
  size_t used = 0;
  for (size_t i = 0; i < count; ++i)
    if (preloaded || environment[i] != preload) all[used++] = environment[i];
  if (!socket) all[used++] = socket_entry;
  if (!preloaded) {
    char* entry = preload_entry;
    if (preload) {
      const char* theirs = preload + sizeof kPreload - 1;
      entry = static_cast<char*>(alloca(std::strlen(preload_entry) + std::strlen(theirs) + 2));
      std::strcpy(entry, preload_entry);
      std::strcat(std::strcat(entry, ":"), theirs);
    }
    all[used++] = entry;
  }
  all[used] = nullptr;
  return run(all, context);
}

}  // namespace hydrant::shim
