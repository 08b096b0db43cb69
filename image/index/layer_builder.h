// Makes a layer's index, and its device, from the stored blob as it streams by: one pass, nothing downloaded twice.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "image/index/layer_index.h"
#include "image/layout.h"

namespace hydrant::image {

struct LayerBuilderOptions {
  uint64_t span = 512 << 10;       // plain bytes between checkpoints: 256 KiB .. 16 MiB
  uint32_t granule = 128 << 10;    // power of two, 64 KiB .. 4 MiB
  std::string spool = "/var/tmp";  // directory where an EROFS image is kept while it streams by, without a name
};

struct BuiltLayer {
  Buffer index;  // bytes of the index file; LayerIndex::load takes them
  LayerIdent ident;
  Digest merkle_root;               // and its leaves: zero and none where others' digests prove the device
  std::vector<Digest> leaves = {};  // one a granule
  uint64_t files = 0;               // entries of the file table
  bool lazy = true;                 // see LayerIndex
};

// Hashing, tar reading and the sink run on two threads of the builder, a few pieces behind `feed`; memory stays under
// 64 MB whatever the layer, but for what goes into the index and the window that a zstd frame asks for. Not
// thread-safe: one thread feeds.
class LayerBuilder {
 public:
  // `sink` (may be empty) gets the whole device, ascending, in pieces of up to 1 MiB at multiples of 4096, on a thread
  // of the builder or in `finish` (all of an EROFS image's), before the layer is proven: what it wrote must stay unseen
  // until `finish` succeeds. It must not block for ever: `feed` and the destructor wait for it.
  LayerBuilder(LayerExpectation expected, LayerBuilderOptions options, DeviceSink sink);
  // Without `finish`: stops the threads; the sink may get a few more pieces meanwhile.
  ~LayerBuilder();

  // The next stored bytes, cut anywhere; blocks while the pipeline is full. kCorrupt names the layer; kUnsupported for
  // what is neither gzip nor zstd nor tar nor EROFS; an error of the sink is passed on. After an error every call
  // repeats it.
  Result<> feed(Bytes stored);
  // The blob is complete. kCorrupt when digest, size or diff_id are not the expected ones; the error names both.
  Result<BuiltLayer> finish();

 private:
  class Pipeline;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace hydrant::image
