// Our own mistakes end the process with a sentence that says where to look. Never reachable by input.
#pragma once

#include <cstdio>
#include <cstdlib>

#define HYDRANT_CHECK(condition, hint)                                                                             \
  do {                                                                                                             \
    if (!(condition)) {                                                                                            \
      std::fprintf(stderr, "hydrant: broken invariant at %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, hint); \
      std::abort();                                                                                                \
    }                                                                                                              \
  } while (0)
