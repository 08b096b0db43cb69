// tree_bench [FILES…]: what merging layers of so many files costs (default: 100 000 and 1 000 000), and writing their
// metadata, against sorting the paths of the same files once; and the most memory that was held. Three layers: nine
// tenths of the files in the lowest, the others over them. Each number runs in a process of its own, for its memory.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "image/erofs/writer.h"
#include "image/tree/merge.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// MB, of this process so far.
double most_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atof(line.c_str() + 6) / 1024;
  return 0;
}

// As distributions have them: directories of twenty files, six levels deep; file data of a block each.
FileTable table_of(size_t first, size_t count, size_t step) {
  FileTable table;
  table.reserve(count + count / 10);
  std::string open;
  for (size_t i = 0; i < count; ++i) {
    const size_t number = first + i * step;
    std::string directory = "usr/lib/package-" + std::to_string(number / 2000) + "/module-" +
                            std::to_string(number / 200 % 10) + "/part-" + std::to_string(number / 20 % 10);
    if (directory != open) {
      FileEntry entry;
      entry.path = directory;
      entry.type = FileType::kDirectory;
      entry.mode = 0755;
      table.push_back(std::move(entry));
      open = std::move(directory);
    }
    FileEntry entry;
    entry.path = open + "/file-" + std::to_string(number % 20) + ".so";
    entry.mode = 0644;
    entry.mtime = 1'700'000'000;
    entry.size = 1000;
    entry.data = {{0, i * 4096, 1000}};
    table.push_back(std::move(entry));
  }
  return table;
}

void run(size_t files) {
  const std::vector<FileTable> layers = {table_of(0, files * 9 / 10, 1), table_of(files * 8 / 10, files / 20, 2),
                                         table_of(files * 9 / 10, files / 10, 1)};
  const double before = most_memory();
  std::vector<std::string_view> paths;
  for (const auto& layer : layers)
    for (const auto& file : layer) paths.push_back(file.path);
  // In an order that says nothing, as hash tables have it.
  for (size_t i = 0; i < paths.size(); ++i) std::swap(paths[i], paths[i * 2654435761 % paths.size()]);
  double start = seconds();
  std::sort(paths.begin(), paths.end());
  const double sorting = seconds() - start;

  start = seconds();
  const FileTable* tables[] = {&layers[0], &layers[1], &layers[2]};
  auto tree = merge(tables);
  const double merging = seconds() - start;
  if (!tree) std::fprintf(stderr, "tree_bench: %s\n", tree.error().what.c_str()), std::exit(1);

  const DeviceInfo devices[] = {
      {std::string(64, 'a'), 1ULL << 40}, {std::string(64, 'b'), 1ULL << 40}, {std::string(64, 'c'), 1ULL << 40}};
  start = seconds();
  auto image = write_erofs(*tree, devices, {.image_id = {}, .build_time = 1'700'000'000});
  const double writing = seconds() - start;
  if (!image) std::fprintf(stderr, "tree_bench: %s\n", image.error().what.c_str()), std::exit(1);
  std::printf(
      "%8zu files: merge %.2f s, %.1f x sorting their paths; metadata %.2f s, %.0f MB; most memory %.0f MB, of "
      "which tables %.0f MB\n",
      files, merging, merging / sorting, writing, double(image->bytes.size()) / 1e6, most_memory(), before);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<size_t> counts = {100'000, 1'000'000};
  if (argc > 1) {
    counts.clear();
    for (int i = 1; i < argc; ++i) counts.push_back(std::strtoull(argv[i], nullptr, 10));
  }
  for (size_t files : counts) {
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child == 0) {
      run(files);
      std::fflush(stdout);
      ::_exit(0);
    }
    int status = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) return 1;
  }
  return 0;
}
