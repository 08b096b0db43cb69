// lying_index FILE: turns the index of a plain tar layer into one that says that each file is everybody's to write, and
// is in order otherwise.
#include <cstdio>

#include "base/file.h"
#include "image/index/layer_index.h"

int main(int argc, char** argv) {
  using namespace hydrant;
  if (argc != 2) return 2;
  auto index = image::LayerIndex::load_file(argv[1], {});
  auto files = index ? (*index)->files() : fail(index.error());
  if (!files) return std::fprintf(stderr, "%s\n", files.error().what.c_str()), 1;
  image::LayerIndexContent lie{.ident = (*index)->ident(),
                               .checkpoints = {},
                               .windows = {},
                               .files = *files,
                               .rows = (*index)->rows(),
                               .leaves = (*index)->leaves()};
  for (auto& file : lie.files) file.mode |= 0666;
  auto written = write_file_atomic(argv[1], image::encode_layer_index(lie));
  return written ? 0 : (std::fprintf(stderr, "%s\n", written.error().what.c_str()), 1);
}
