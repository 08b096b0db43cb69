// What a byte costs fetchd's side of a transfer: reads of one blob over loopback HTTP, by request size. The server runs
// in threads of its own, and only the reading thread's CPU time counts: bytes_per_second is a core's worth (plain
// bytes, no TLS, nothing decoded).
#include <benchmark/benchmark.h>

#include "source/http/http_blob.h"
#include "source/http/scripted_server.h"

namespace hydrant::source {
namespace {

void BM_Read(benchmark::State& state) {
  const std::string content(64 << 20, 'x');
  ScriptedServer server([&](const ScriptedServer::Request& r) { return ScriptedServer::serve(r, content); });
  auto blob = HttpBlob::immutable(std::make_shared<HttpClient>(), {.url = server.url(), .authorizer = {}, .name = {}},
                                  content.size());
  const auto size = static_cast<uint64_t>(state.range(0));
  uint64_t at = 0, got = 0;
  for (auto _ : state) {
    if (at + size > content.size()) at = 0;
    auto done =
        blob->read({.range = {at, at + size}, .deadline = Deadline::after(std::chrono::seconds(20)), .stop = {}},
                   [&](Bytes piece) -> Result<> {
                     got += piece.size();
                     return {};
                   });
    if (!done) {
      state.SkipWithError(done.error().what.c_str());
      break;
    }
    at += size;
  }
  state.SetBytesProcessed(static_cast<int64_t>(got));
}
BENCHMARK(BM_Read)->Arg(64 << 10)->Arg(1 << 20)->Arg(4 << 20)->Arg(64 << 20);

}  // namespace
}  // namespace hydrant::source

BENCHMARK_MAIN();
