// tree_bench [FILES…]: what an image of so many files costs once its layers are indexed (default: 100 000 and 1 000
// 000): reading their file tables from the indexes, merging them and writing the metadata, against sorting the paths of
// the same files once; and the most memory that was held. Three layers: nine tenths of the files in the lowest, the
// others over them. Each number runs in a process of its own, for its memory. Times are of the processor: all of it is
// one thread.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/file.h"
#include "base/temporary_directory.h"
#include "image/erofs/writer.h"
#include "image/index/layer_index.h"
#include "image/tree/merge.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

constexpr uint32_t kGranule = 128 << 10;

double seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

[[noreturn]] void die(const Error& error) {
  std::fprintf(stderr, "tree_bench: %s\n", error.what.c_str());
  std::exit(1);
}

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

// As the layer's builder would have made it, but for what the bytes of files are.
Buffer index_of(FileTable files) {
  LayerIndexContent content;
  for (const FileEntry& file : files) {
    if (file.data.empty()) continue;
    const uint64_t at = file.data[0].device_offset;
    content.rows.push_back({at, at + 512 * (content.rows.size() + 1), file.size});
  }
  const uint64_t device = content.rows.size() * 4096;
  content.ident.tar_size = content.ident.stored_size = content.ident.stored_end = device + 512 * content.rows.size();
  content.ident.device_size = device;
  content.ident.granule = kGranule;
  content.leaves.resize((device + kGranule - 1) / kGranule);
  content.files = std::move(files);
  return encode_layer_index(content);
}

double sorting(const std::vector<FileTable>& tables) {
  std::vector<std::string_view> paths;
  for (const auto& table : tables)
    for (const auto& file : table) paths.push_back(file.path);
  // In an order that says nothing, as hash tables have it.
  for (size_t i = 0; i < paths.size(); ++i) std::swap(paths[i], paths[i * 2654435761 % paths.size()]);
  const double start = seconds();
  std::sort(paths.begin(), paths.end());
  return seconds() - start;
}

std::string place_of(const std::string& directory, size_t layer) { return directory + "/" + std::to_string(layer); }

void make_indexes(const std::string& directory, size_t files) {
  FileTable tables[] = {table_of(0, files * 9 / 10, 1), table_of(files * 8 / 10, files / 20, 2),
                        table_of(files * 9 / 10, files / 10, 1)};
  for (size_t layer = 0; layer < std::size(tables); ++layer)
    if (auto done = write_file_atomic(place_of(directory, layer), index_of(std::move(tables[layer]))); !done)
      die(done.error());
}

void prepare(const std::string& directory, size_t files) {
  double start = seconds();
  std::vector<FileTable> tables;
  std::vector<DeviceInfo> devices;
  for (size_t layer = 0; layer < 3; ++layer) {
    auto index = LayerIndex::load_file(place_of(directory, layer), {});
    if (!index) die(index.error());
    auto table = (*index)->files();
    if (!table) die(table.error());
    tables.push_back(*std::move(table));
    devices.push_back({std::string(64, char('a' + layer)), (*index)->ident().device_size});
  }
  const double reading = seconds() - start;

  start = seconds();
  const FileTable* layers[] = {&tables[0], &tables[1], &tables[2]};
  auto tree = merge(layers);
  const double merging = seconds() - start;
  if (!tree) die(tree.error());

  start = seconds();
  auto image = write_erofs(*tree, devices, {.image_id = {}, .build_time = 1'700'000'000});
  const double writing = seconds() - start;
  if (!image) die(image.error());
  const double memory = most_memory();
  std::printf(
      "%8zu files: tables %.2f s, merge %.2f s (%.1f x sorting their paths), metadata %.2f s; %.0f MB of it, most "
      "memory %.0f MB; %.16s\n",
      files, reading, merging, merging / sorting(tables), writing, double(image->bytes.size()) / 1e6, memory,
      sha256(image->bytes).hex().c_str());
}

template <class Work>
bool in_child(Work work) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    std::fflush(stdout);
    ::_exit(0);
  }
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<size_t> counts = {100'000, 1'000'000};
  if (argc > 1) {
    counts.clear();
    for (int i = 1; i < argc; ++i) counts.push_back(std::strtoull(argv[i], nullptr, 10));
  }
  for (size_t files : counts) {
    const TemporaryDirectory directory;
    if (!in_child([&] { make_indexes(directory.path(), files); }) ||
        !in_child([&] { prepare(directory.path(), files); }))
      return 1;
  }
  return 0;
}
