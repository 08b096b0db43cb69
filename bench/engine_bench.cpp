// What a hit and a miss cost, layer by layer: a hit; a request that carries no data (the table, delivery, completion);
// a miss with its 4 KiB written; the same across the socket. The user daemon answers at once.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "cachefiles/engine.h"
#include "daemon/channel_server.h"
#include "fetch/transport/socket_control.h"
#include "proto/cachefiles_message.h"

namespace hydrant {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kBlocks = 16384;  // of the object; it is emptied when all were asked for

std::string object_size() { return std::to_string(kBlocks * kBlock); }

// An engine with one object in use, and the consumer's side of a measurement.
class Setup {
 public:
  Setup() {
    log::set_level(log::Level::kError);
    std::string name = (std::filesystem::temp_directory_path() / "hydrant-bench-XXXXXX").string();
    HYDRANT_CHECK(::mkdtemp(name.data()), "no temporary directory");
    directory_ = name;
    engine_ = cachefiles::Engine::create({});
    HYDRANT_CHECK(engine_->open_channel({}, &channel_) == 0, "the slot is taken");
    write("dir " + directory_);
    write("bind ondemand");
    cookie_ = engine_->acquire_cookie(engine_->acquire_volume("bench").value(), as_bytes("key")).value();
  }
  virtual ~Setup() { std::filesystem::remove_all(directory_); }

  cachefiles::Cookie& cookie() { return *cookie_; }

  // Asks for `count` blocks that are not there and waits for all of them.
  void ask(uint64_t count) {
    left_.store(count);
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t block = next_++;
      cookie_->ensure({block * kBlock, (block + 1) * kBlock}, [this, begin = now()](int) {
        times_[slot_.fetch_add(1, std::memory_order_relaxed) % times_.size()] = now() - begin;
        if (left_.fetch_sub(1) == 1) left_.notify_one();
      });
    }
    for (uint64_t seen; (seen = left_.load()) != 0;) left_.wait(seen);
  }
  bool used_up(uint64_t count) const { return next_ + count > kBlocks; }
  void empty() {
    HYDRANT_CHECK(cookie_->resize(0) == 0 && cookie_->resize(kBlocks * kBlock) == 0, "resize");
    next_ = 0;
  }
  void report(benchmark::State& state, uint64_t outstanding) {
    state.SetItemsProcessed(state.iterations() * int64_t(outstanding));
    size_t count = std::min<size_t>(slot_.load(), times_.size());
    std::sort(times_.begin(), times_.begin() + long(count));
    if (count == 0) return;
    state.counters["p50_us"] = double(times_[count / 2]) / 1000;
    state.counters["p99_us"] = double(times_[count * 99 / 100]) / 1000;
  }

 protected:
  static int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
  void write(const std::string& command) {
    HYDRANT_CHECK(channel_->write(as_bytes(command), {}) > 0, "a command was refused");
  }
  void use() {
    active_.store(0);
    cookie_->use([this](int result) {
      active_.store(result == 0 ? 1 : -1);
      active_.notify_all();
    });
  }
  void wait_active() {
    active_.wait(0);
    HYDRANT_CHECK(active_.load() == 1, "the lookup failed");
  }
  void let_go() {
    cookie_.reset();
    engine_->settle(Deadline::after(std::chrono::seconds(1)));
  }

  std::string directory_;
  std::unique_ptr<cachefiles::Engine> engine_;
  std::shared_ptr<cachefiles::Channel> channel_;
  std::shared_ptr<cachefiles::Cookie> cookie_;

 private:
  std::atomic<int> active_{0};
  std::atomic<uint64_t> left_{0}, slot_{0};
  std::vector<int64_t> times_ = std::vector<int64_t>(1 << 16);
  uint64_t next_ = 0;
};

// The daemon calls the engine.
class InProcess final : public Setup, private cachefiles::Receiver {
 public:
  // `threads` 0: the consumer's own thread answers. `data`: whether the blocks are written, or only completed.
  InProcess(int threads, bool data) : data_(data) {
    channel_->on_wake([this] {
      wakes_.fetch_add(1);
      wakes_.notify_one();
    });
    use();
    for (uint64_t seen = wakes_.load(); channel_->read(1024, *this) == 0; seen = wakes_.load()) wakes_.wait(seen);
    write("copen 0," + object_size());
    wait_active();
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this](std::stop_token stop) { serve(stop); });
  }
  ~InProcess() override {
    for (auto& thread : threads_) thread.request_stop();
    wakes_.fetch_add(1);
    wakes_.notify_all();
    threads_.clear();
    channel_->on_wake([] {});
    handle_.reset();
    handles_.clear();
    more_.clear();
    channel_.reset();
    let_go();
    engine_.reset();
  }
  // That many more objects in use, each with its daemon's handle. Yields how many there are.
  uint64_t open_objects(uint64_t count) {
    auto volume = engine_->acquire_volume("many").value();
    more_.reserve(count);
    handles_.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      std::string key = "object " + std::to_string(i);
      more_.push_back(engine_->acquire_cookie(volume, as_bytes(key)).value());
      std::atomic<int> ready{0};
      more_.back()->use([&](int result) {
        ready.store(result == 0 ? 1 : -1);
        ready.notify_one();
      });
      Keeper keeper(handles_);
      for (uint64_t seen = wakes_.load(); channel_->read(1024, keeper) == 0; seen = wakes_.load()) wakes_.wait(seen);
      write("copen " + std::to_string(keeper.id) + "," + object_size());
      ready.wait(0);
      if (ready.load() < 0) return i;
    }
    return count;
  }
  uint64_t open_files() {
    for (auto& [name, value] : engine_->listing(0).counters)
      if (name == "files.open") return value;
    return 0;
  }
  // One request, answered by the caller.
  void ask_and_answer() {
    left_ = false;
    uint64_t block = block_++ % kBlocks;
    cookie_->ensure({block * kBlock, (block + 1) * kBlock}, [this](int) { left_ = true; });
    answer_one(reader_);
    HYDRANT_CHECK(left_, "the answer did not complete the request");
  }

 private:
  struct Reader final : cachefiles::Receiver {
    int reserve_fd() override { return -EMFILE; }
    bool deliver(Bytes message, std::shared_ptr<cachefiles::Handle>, int) override {
      size = message.size();
      std::copy(message.begin(), message.end(), memory.begin());
      return true;
    }
    std::array<std::byte, 1024> memory;
    size_t size = 0;
  };
  struct Keeper final : cachefiles::Receiver {
    explicit Keeper(std::vector<std::shared_ptr<cachefiles::Handle>>& handles) : handles_(handles) {}
    int reserve_fd() override { return 3; }
    bool deliver(Bytes message, std::shared_ptr<cachefiles::Handle> handle, int) override {
      id = load_le<uint32_t>(message.data());
      handles_.push_back(std::move(handle));
      return true;
    }
    uint32_t id = 0;
    std::vector<std::shared_ptr<cachefiles::Handle>>& handles_;
  };
  int reserve_fd() override { return 3; }
  bool deliver(Bytes, std::shared_ptr<cachefiles::Handle> handle, int) override {
    handle_ = std::move(handle);
    return true;
  }
  bool answer_one(Reader& reader) {
    if (channel_->read(1024, reader) <= 0) return false;
    auto id = load_le<uint32_t>(reader.memory.data());
    auto offset = load_le<uint64_t>(reader.memory.data() + 16);
    static const Buffer block(kBlock, std::byte('x'));
    if (data_) HYDRANT_CHECK(handle_->pwrite(block, offset) == int64_t(kBlock), "a write failed");
    handle_->ioctl(proto::kReadComplete, id);
    return true;
  }
  void serve(const std::stop_token& stop) {
    Reader reader;
    while (!stop.stop_requested()) {
      uint64_t seen = wakes_.load();
      if (!answer_one(reader) && !stop.stop_requested()) wakes_.wait(seen);
    }
  }

  const bool data_;
  std::shared_ptr<cachefiles::Handle> handle_;
  std::vector<std::shared_ptr<cachefiles::Handle>> handles_;
  std::vector<std::shared_ptr<cachefiles::Cookie>> more_;
  std::atomic<uint64_t> wakes_{0};
  Reader reader_;
  bool left_ = false;
  uint64_t block_ = 0;
  std::vector<std::jthread> threads_;
};

// The daemon is a client of the channel server, as hydrant-fetchd is.
class AcrossSocket final : public Setup {
 public:
  explicit AcrossSocket(int threads) {
    std::string path = directory_ + "/channel.sock";
    daemon::ChannelServerOptions options;
    options.allowed_uid = ::getuid();
    server_ =
        daemon::ChannelServer::start(*engine_, channel_, listen_unix(path, SocketType::kSeqPacket).value(), options)
            .value();
    control_ = fetch::SocketControl::attach(path, Deadline::after(std::chrono::seconds(10))).value();
    use();
    auto open = std::get<fetch::OpenRequest>(next().value());
    handle_ = open.handle;
    HYDRANT_CHECK(control_->write("copen " + std::to_string(open.msg_id) + "," + object_size()) > 0, "copen");
    wait_active();
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  }
  ~AcrossSocket() override {
    control_->stop();
    threads_.clear();
    handle_.reset();
    control_.reset();
    server_.reset();
    channel_.reset();
    let_go();
    engine_.reset();
  }

 private:
  Result<fetch::Request> next() { return control_->next(Deadline::after(std::chrono::seconds(600))); }
  void serve() {
    Buffer block(kBlock, std::byte('x'));
    std::vector<fetch::Request> requests;
    std::vector<fetch::Fill> fills;
    while (control_->next_some(requests, 64, Deadline::after(std::chrono::seconds(600)))) {
      for (auto& request : requests) {
        auto& read = std::get<fetch::ReadRequest>(request);
        fills.push_back({handle_.get(), block, read.range.begin, read.msg_id});
      }
      control_->fill_all(fills);
      requests.clear();
      fills.clear();
    }
  }

  std::unique_ptr<daemon::ChannelServer> server_;
  std::unique_ptr<fetch::Control> control_;
  std::shared_ptr<fetch::ObjectHandle> handle_;
  std::vector<std::jthread> threads_;
};

// Of the whole process, both sides and the kernel's work for them: what a request costs whatever else the machine does.
double cpu_us() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
         double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

template <class Under>
void misses(benchmark::State& state, Under& setup, uint64_t outstanding) {
  double before = cpu_us();
  for (auto _ : state) {
    if (setup.used_up(outstanding)) {
      state.PauseTiming();
      setup.empty();
      state.ResumeTiming();
    }
    setup.ask(outstanding);
  }
  state.counters["cpu_us"] = (cpu_us() - before) / double(state.iterations()) / double(outstanding);
  setup.report(state, outstanding);
}

// What the front asks first: is it here?
void HitPresence(benchmark::State& state) {
  InProcess setup(0, true);
  for (int i = 0; i < 1024; ++i) setup.ask_and_answer();
  uint64_t block = 0;
  for (auto _ : state) {
    block = (block + 1) % 1024;
    benchmark::DoNotOptimize(setup.cookie().present({block * kBlock, (block + 1) * kBlock}));
  }
}
BENCHMARK(HitPresence);

void HitWithIts4KiB(benchmark::State& state) {
  InProcess setup(0, true);
  for (int i = 0; i < 1024; ++i) setup.ask_and_answer();
  Buffer out(kBlock);
  uint64_t block = 0;
  for (auto _ : state) {
    block = (block + 1) % 1024;
    if (setup.cookie().present({block * kBlock, (block + 1) * kBlock}))
      benchmark::DoNotOptimize(setup.cookie().read(out, block * kBlock));
  }
}
BENCHMARK(HitWithIts4KiB);

void RequestWithoutData(benchmark::State& state) {
  InProcess setup(0, false);
  for (auto _ : state) setup.ask_and_answer();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(RequestWithoutData);

void MissInOneThread(benchmark::State& state) {
  InProcess setup(0, true);
  uint64_t done = 0;
  for (auto _ : state) {
    if (++done % kBlocks == 0) {
      state.PauseTiming();
      setup.empty();
      state.ResumeTiming();
    }
    setup.ask_and_answer();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(MissInOneThread);

void MissesInProcess(benchmark::State& state) {
  InProcess setup(int(state.range(0)), true);
  misses(state, setup, uint64_t(state.range(1)));
}
BENCHMARK(MissesInProcess)
    ->ArgsProduct({{1, 2, 4, 8}, {1, 64, 2000}})
    ->ArgNames({"threads", "outstanding"})
    ->UseRealTime();

void MissesAcrossTheSocket(benchmark::State& state) {
  AcrossSocket setup(int(state.range(0)));
  misses(state, setup, uint64_t(state.range(1)));
}
BENCHMARK(MissesAcrossTheSocket)
    ->ArgsProduct({{1, 2, 4, 8}, {1, 64, 2000}})
    ->ArgNames({"threads", "outstanding"})
    ->UseRealTime();

// What an open object costs in memory, its content map left out (nothing is written): at most 1 KiB, with the pointers
// of its consumer and its daemon. Half of the descriptors that the process may have go to backing files, whatever
// their number.
void OpenObjects(benchmark::State& state) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  auto resident = [] {
    unsigned long long total = 0, pages = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    HYDRANT_CHECK(file && std::fscanf(file, "%llu %llu", &total, &pages) == 2, "statm");
    std::fclose(file);
    return pages * 4096;
  };
  for (auto _ : state) {
    InProcess setup(0, false);
    uint64_t before = resident();
    uint64_t opened = setup.open_objects(uint64_t(state.range(0)));
    state.counters["objects"] = double(opened);
    state.counters["open_files"] = double(setup.open_files());
    double each = double(resident() - before) / double(opened);
    state.counters["bytes_each"] = each;
    if (each > 1024) state.SkipWithError("an object costs more than 1 KiB");
  }
}
BENCHMARK(OpenObjects)->Arg(20'000)->Arg(100'000)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace hydrant
