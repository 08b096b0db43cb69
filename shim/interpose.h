// How a function takes the place of libc's: under its symbol, without meeting its declaration.
#pragma once

#define HYDRANT_EXPORT extern "C" [[gnu::visibility("default")]]

// HYDRANT_INTERPOSE(int, close, (int fd)) { … }
#define HYDRANT_INTERPOSE(result, name, parameters)                  \
  HYDRANT_EXPORT result interposed_##name parameters __asm__(#name); \
  result interposed_##name parameters

// Another symbol of libc for the same function.
#define HYDRANT_ALSO(symbol, name) \
  HYDRANT_EXPORT decltype(interposed_##name) interposed_##symbol __asm__(#symbol) [[gnu::alias(#name)]]
