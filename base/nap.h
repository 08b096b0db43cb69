// Sleeping that whoever stops us can end.
#pragma once

#include <stop_token>

#include "base/clock.h"

namespace hydrant {

// Sleeps unless stopped.
void nap(std::stop_token stop, Duration duration);

}  // namespace hydrant
