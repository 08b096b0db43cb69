// layer_bench LAYER.tar.gz: what indexing a layer costs against zcat of the same file, alone and several layers at a
// time, and its memory; what the two resume engines yield; and, for each span and granule, how large the index is and
// how much a random read fetches. Figures of one run on one machine are comparable with each other only.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "image/gzip/span_decoder.h"
#include "image/index/layer_builder.h"
#include "image/index/layer_layout.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double of(const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) / 1e6; }

[[noreturn]] void die(const Error& error) {
  std::fprintf(stderr, "layer_bench: %s\n", error.what.c_str());
  std::exit(1);
}

BuiltLayer build(Bytes stored, LayerBuilderOptions options) {
  LayerBuilder builder({}, options, [](uint64_t, Bytes) { return Result<>(); });
  for (size_t at = 0; at < stored.size(); at += 256 << 10)
    if (auto fed = builder.feed(stored.subspan(at, std::min<size_t>(256 << 10, stored.size() - at))); !fed)
      die(fed.error());
  auto built = builder.finish();
  if (!built) die(built.error());
  return *std::move(built);
}

// Processes that do the same at once.
struct Race {
  double wall = 0;
  double cpu = 0;        // of all
  double memory_mb = 0;  // of the largest, its program included
};

template <class Run>
Race race(int processes, Run run) {
  const double start = seconds();
  std::vector<pid_t> children;
  for (int i = 0; i < processes; ++i) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) run();  // does not return
    children.push_back(child);
  }
  Race race;
  for (const pid_t child : children) {
    int status = 0;
    rusage use{};
    if (::wait4(child, &status, 0, &use) != child || status != 0) std::exit(1);
    race.cpu += of(use.ru_utime) + of(use.ru_stime);
    race.memory_mb = std::max(race.memory_mb, double(use.ru_maxrss) / 1024);
  }
  race.wall = seconds() - start;
  return race;
}

[[noreturn]] void zcat(const char* path) {
  const Fd nowhere(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  ::dup2(nowhere.get(), STDOUT_FILENO);
  ::execlp("zcat", "zcat", path, nullptr);
  ::_exit(1);
}

// Nothing of the layer is in memory but what the builder holds.
[[noreturn]] void build_file(const char* path) {
  const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
  LayerBuilder builder({}, {}, [](uint64_t, Bytes) { return Result<>(); });
  Buffer piece(256 << 10);
  for (ssize_t got; (got = ::read(file.get(), piece.data(), piece.size())) > 0;)
    if (auto fed = builder.feed(Bytes(piece).first(size_t(got))); !fed) die(fed.error());
  if (auto built = builder.finish(); !built) die(built.error());
  ::_exit(0);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void compare_with_zcat(const char* path) {
  constexpr int kRounds = 5;
  for (const int layers : {1, 2, 4}) {
    std::vector<double> walls, cpus;
    double memory = 0;
    for (int round = 0; round < kRounds; ++round) {
      const Race theirs = race(layers, [&] { zcat(path); }), ours = race(layers, [&] { build_file(path); });
      walls.push_back(theirs.wall / ours.wall);
      cpus.push_back(theirs.cpu / ours.cpu);
      memory = std::max(memory, ours.memory_mb);
    }
    std::printf("%d layer%s at a time: %.2f x zcat by the clock (%.2f .. %.2f), %.2f x by processor time; %.0f MB\n",
                layers, layers > 1 ? "s" : "", median(walls), *std::min_element(walls.begin(), walls.end()),
                *std::max_element(walls.begin(), walls.end()), median(cpus), memory);
  }
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}

// Plain MB a second of processor time, each span entered by itself.
double resume_all(const LayerIndex& index, Bytes stored, SpanDecoder::Engine engine) {
  const double start = thread_seconds();
  for (size_t i = 0; i < index.span_count(); ++i) {
    const Span span = index.span(i);
    const Buffer window = *index.window(i);
    SpanDecoder decoder(span, window, engine);
    auto fed =
        decoder.feed(stored.subspan(span.stored().begin, span.stored().size()), [](Bytes) { return Result<>(); });
    if (!fed) die(fed.error());
    if (auto done = decoder.finish(); !done) die(done.error());
  }
  return double(index.ident().tar_size) / (thread_seconds() - start) / 1e6;
}

void compare_engines(const LayerIndex& index, Bytes stored) {
  std::vector<double> isal, zlib, ratios;
  for (int round = 0; round < 5; ++round) {
    isal.push_back(resume_all(index, stored, SpanDecoder::Engine::kIsal));
    zlib.push_back(resume_all(index, stored, SpanDecoder::Engine::kZlib));
    ratios.push_back(isal.back() / zlib.back());
  }
  std::printf("         from checkpoints: ISA-L %.0f MB/s a core, zlib %.0f MB/s, %.2f x\n", median(isal), median(zlib),
              median(ratios));
}

// Stored bytes fetched by reads of 128 KiB at random places, over the stored bytes that as many plain bytes take on
// average; and device bytes that such a fetch makes available.
void amplification(const std::shared_ptr<const LayerIndex>& index, double& fetched, double& yielded) {
  constexpr uint64_t kRead = 128 << 10;
  constexpr int kReads = 2000;
  LayerLayout layout(index);
  std::mt19937_64 random(1);
  double stored = 0, device = 0;
  for (int i = 0; i < kReads; ++i) {
    const uint64_t begin = round_down(random() % (layout.device_size() - kRead), 4096);
    const Fill fill = layout.plan({begin, begin + kRead});
    stored += double(fill.stored.size());
    device += double(fill.device.size());
  }
  const double ratio = double(index->ident().stored_size) / double(index->ident().tar_size);
  fetched = stored / kReads / (double(kRead) * ratio);
  yielded = device / kReads;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: layer_bench LAYER.tar.gz\n");
    return 2;
  }
  compare_with_zcat(argv[1]);
  auto text = read_file(argv[1], size_t(4) << 30);
  if (!text) die(text.error());
  const Bytes stored = as_bytes(*text);
  std::printf("\n%8s %9s %7s %9s %12s %12s\n", "span", "granule", "index", "of layer", "fetched x", "yields KiB");
  for (uint64_t span : {256 << 10, 512 << 10, 1 << 20, 2 << 20}) {
    for (uint32_t granule : {128 << 10, 256 << 10, 512 << 10, 1 << 20}) {
      auto built = build(stored, {.span = span, .granule = granule});
      const double size = double(built.index.size());
      auto index = LayerIndex::load(std::move(built.index), {});
      if (!index) die(index.error());
      double fetched = 0, yielded = 0;
      amplification(*index, fetched, yielded);
      std::printf("%7luK %8uK %6.0fK %8.2f%% %12.1f %12.0f\n", span >> 10, granule >> 10, size / 1024,
                  100 * size / double(stored.size()), fetched, yielded / 1024);
      if (granule == (256 << 10)) compare_engines(**index, stored);
    }
  }
  return 0;
}
