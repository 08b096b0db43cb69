// layer_bench LAYER.tar.gz: what indexing a layer costs against zcat of the same file, what the two resume engines
// yield, and, for each span and granule, how large the index is and how much a random read fetches. Figures of one run
// on one machine are comparable with each other only.
#include <fcntl.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "base/file.h"
#include "image/gzip/span_decoder.h"
#include "image/index/layer_builder.h"
#include "image/index/layer_layout.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double cpu_seconds() {
  rusage self{}, children{};
  getrusage(RUSAGE_SELF, &self);
  getrusage(RUSAGE_CHILDREN, &children);
  double sum = 0;
  for (const auto& use : {self, children})
    sum +=
        double(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + double(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
  return sum;
}

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

double resume_all(const LayerIndex& index, Bytes stored, SpanDecoder::Engine engine) {
  const double start = seconds();
  for (size_t i = 0; i < index.span_count(); ++i) {
    const Span span = index.span(i);
    const Buffer window = *index.window(i);
    SpanDecoder decoder(span, window, engine);
    auto fed =
        decoder.feed(stored.subspan(span.stored().begin, span.stored().size()), [](Bytes) { return Result<>(); });
    if (!fed) die(fed.error());
    if (auto done = decoder.finish(); !done) die(done.error());
  }
  return double(index.ident().tar_size) / (seconds() - start) / 1e6;
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
  auto text = read_file(argv[1], size_t(4) << 30);
  if (!text) die(text.error());
  const Bytes stored = as_bytes(*text);

  for (int round = 0; round < 3; ++round) {
    double wall = seconds(), cpu = cpu_seconds();
    if (std::system(("zcat '" + std::string(argv[1]) + "' > /dev/null").c_str()) != 0) return 1;
    const double zcat_wall = seconds() - wall, zcat_cpu = cpu_seconds() - cpu;
    wall = seconds();
    cpu = cpu_seconds();
    const auto built = build(stored, {});
    const double build_wall = seconds() - wall, build_cpu = cpu_seconds() - cpu;
    std::printf("build: %.2f s wall, %.2f s cpu; zcat: %.2f s wall, %.2f s cpu; %.2f x zcat\n", build_wall, build_cpu,
                zcat_wall, zcat_cpu, zcat_wall / build_wall);
  }
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
      if (granule == (256 << 10)) {
        std::printf("         resume: ISA-L %.0f MB/s, zlib %.0f MB/s\n",
                    resume_all(**index, stored, SpanDecoder::Engine::kIsal),
                    resume_all(**index, stored, SpanDecoder::Engine::kZlib));
      }
    }
  }
  return 0;
}
