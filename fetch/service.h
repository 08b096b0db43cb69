// The admin API of hydrant-fetchd: what a connection may ask and what it gets (proto/admin.h).
#pragma once

#include <functional>
#include <memory>

#include "base/line_socket.h"
#include "fetch/confinement.h"
#include "fetch/objects.h"
#include "fetch/prefetcher.h"
#include "fetch/prepare.h"
#include "fetch/request_loop.h"

namespace hydrant::fetch {

// What the sessions use; all of it outlives the server.
struct Service {
  Preparer& preparer;
  Prefetcher& prefetcher;
  Objects& objects;
  Catalogue& catalogue;
  RequestLoop& loop;
  const Confinement& confinement;
  std::function<void()> stop;  // asks the daemon to end; from any thread
};

std::unique_ptr<LineSession> make_session(const Service& service);

}  // namespace hydrant::fetch
