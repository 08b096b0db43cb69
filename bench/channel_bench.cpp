// What the control channel across processes costs by itself: a scripted engine that writes nowhere, a server and a
// user daemon in one process, a READ out and a 4 KiB pwrite with completion back.
#include <benchmark/benchmark.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "cachefiles/fake_engine.h"
#include "daemon/channel_server.h"
#include "fetch/transport/socket_control.h"

namespace hydrant {
namespace {

// A user daemon of `threads` threads that answer every READ from the same memory.
class Setup {
 public:
  Setup(int threads, int objects, size_t fill) : fill_(fill) {
    log::set_level(log::Level::kError);
    std::string name = (std::filesystem::temp_directory_path() / "hydrant-bench-XXXXXX").string();
    HYDRANT_CHECK(::mkdtemp(name.data()), "no temporary directory");
    directory_ = name;
    std::string path = directory_ + "/channel.sock";
    daemon::ChannelServerOptions options;
    options.allowed_uid = ::getuid();
    server_ =
        daemon::ChannelServer::start(engine_, channel_, listen_unix(path, SocketType::kSeqPacket).value(), options)
            .value();
    control_ = fetch::SocketControl::attach(path, Deadline::after(std::chrono::seconds(10))).value();
    object_->record = false;
    for (int i = 0; i < objects; ++i) {
      channel_->push_open(uint32_t(i), object_);
      handles_.push_back(std::get<fetch::OpenRequest>(next().value()).handle);
    }
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  }
  ~Setup() {
    control_->stop();
    threads_.clear();
    handles_.clear();
    control_.reset();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }
  // Asks for `count` reads and waits for their completions.
  void ask(uint64_t count) {
    uint64_t target = object_->completions + count;
    channel_->waiting_reads = count;
    for (uint64_t i = 0; i < count; ++i) channel_->push_read(next_msg_++, {0, fill_});
    for (uint64_t seen; (seen = object_->completions) < target;) object_->completions.wait(seen);
  }

 private:
  Result<fetch::Request> next() { return control_->next(Deadline::after(std::chrono::seconds(60))); }
  void serve() {
    Buffer data(fill_);
    std::vector<fetch::Request> requests;
    std::vector<fetch::Fill> fills;
    while (control_->next_some(requests, 64, Deadline::after(std::chrono::seconds(60)))) {
      for (auto& request : requests) {
        uint32_t msg_id = std::get<fetch::ReadRequest>(request).msg_id;
        fills.push_back({handles_[msg_id % handles_.size()].get(), data, 0, msg_id});
      }
      control_->fill_all(fills);
      requests.clear();
      fills.clear();
    }
  }

  const size_t fill_;
  std::string directory_;
  cachefiles::FakeEngine engine_;
  std::shared_ptr<cachefiles::FakeChannel> channel_ = std::make_shared<cachefiles::FakeChannel>();
  std::shared_ptr<cachefiles::FakeObject> object_ = std::make_shared<cachefiles::FakeObject>();
  std::unique_ptr<daemon::ChannelServer> server_;
  std::unique_ptr<fetch::Control> control_;
  std::vector<std::shared_ptr<fetch::ObjectHandle>> handles_;
  uint32_t next_msg_ = 1000;
  std::vector<std::jthread> threads_;
};

void MissWithOneOutstanding(benchmark::State& state) {
  Setup setup(1, 1, 4096);
  for (auto _ : state) setup.ask(1);
}
BENCHMARK(MissWithOneOutstanding)->UseRealTime()->Unit(benchmark::kMicrosecond);

void MissesWithManyOutstanding(benchmark::State& state) {
  Setup setup(int(state.range(0)), 4, 4096);
  uint64_t outstanding = uint64_t(state.range(1));
  for (auto _ : state) setup.ask(outstanding);
  state.SetItemsProcessed(state.iterations() * int64_t(outstanding));
}
BENCHMARK(MissesWithManyOutstanding)->ArgsProduct({{1, 2, 4, 8}, {64, 2000}})->UseRealTime();

void FillOfOneGranule(benchmark::State& state) {
  Setup setup(1, 1, size_t(state.range(0)));
  for (auto _ : state) setup.ask(1);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(FillOfOneGranule)->Arg(64 << 10)->Arg(1 << 20)->Arg(4 << 20)->UseRealTime();

}  // namespace
}  // namespace hydrant
