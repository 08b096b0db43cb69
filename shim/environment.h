// What the library was told by `hydrant cachefiles-exec`, and must tell the programs that its own program executes.
#pragma once

#include <cstddef>

namespace hydrant::shim {

// The channel socket of the engine (HYDRANT_CACHEFILES_SOCKET); empty when there is none, and then nothing is ours.
const char* engine_socket();

// Calls `run` with `environment`, to which what is missing is added: a program may clean its environment, and the
// kernel's device would be there all the same. No allocation, for the child of a vfork comes here.
using Run = int(char* const* environment, void* context);
int with_environment(char* const* environment, Run* run, void* context);

}  // namespace hydrant::shim
