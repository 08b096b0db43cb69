// From the entries of a table of contents to what the tar walk gives: the file table, and where the data stands.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "image/index/layer_index.h"
#include "image/toc/toc_json.h"

namespace hydrant::image {

// What an entry that is no chunk says of its file, as of a tar's member; nothing for what is in no tree. Leaves the
// name in `entry`.
Result<std::optional<FileEntry>> toc_file(TocEntry& entry);

// Takes the entries in order. Paths, whiteouts, links and attributes are what TarReader makes of them; landmarks and
// the table itself are hidden. kCorrupt for a table that contradicts itself, kUnsupported for one that cannot be relied
// on alone: data without a digest, chunks larger than kMaxChunk, names that JSON could not carry, data out of order.
// Not thread-safe.
class TocTable {
 public:
  Result<> add(TocEntry&& entry);

  // All entries are there: fills in files, chunks, rows, and the ident's sizes. `ident` tells compression and
  // stored_end, behind which no chunk may begin.
  Result<LayerIndexContent> finish(LayerIdent ident, const Digest& toc);

 private:
  // Chunks of one file, as far as they hold data.
  struct Data {
    size_t file = 0;              // in files_
    size_t first = 0, count = 0;  // in chunks_
  };
  struct FileChunk {
    uint64_t file_offset = 0;
    Chunk chunk;
    bool zeros = false;
    bool proven = false;  // has a digest
  };

  Result<> add_chunk(TocEntry&& entry);
  Result<> close_file();

  FileTable files_;
  std::vector<FileChunk> chunks_;
  std::vector<Data> data_;
  std::optional<Data> open_;  // the last regular file, whose chunks may follow
  bool hidden_ = false;       // the last entry is in no tree, and its chunks neither
  std::string name_;          // of the last regular file, as written
  Digest digest_;             // of it as a whole
};

}  // namespace hydrant::image
