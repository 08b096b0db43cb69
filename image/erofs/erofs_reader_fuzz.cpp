// Any bytes as an EROFS image: a table that an index takes and a merge takes, or a refusal.
#include "base/check.h"
#include "image/erofs/erofs_fixture.h"
#include "image/index/erofs_rows.h"
#include "image/index/index_sections.h"
#include "image/tree/merge.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes image = std::as_bytes(std::span(data, size));
  auto table = fixture::read_erofs(image);
  if (!table) return 0;
  for (const auto& file : table->files)
    for (const auto& piece : file.data)
      HYDRANT_CHECK(piece.device_offset <= size && piece.length <= size - piece.device_offset, "data in the image");
  std::vector<uint64_t> sizes(table->packed.size());
  uint64_t left = 64 << 20;  // of output, so that an input takes no minute
  auto unpacked =
      unpack_erofs(*table, fixture::reader_of(image), [&](size_t packed, uint64_t offset, Bytes bytes) -> Result<> {
        HYDRANT_CHECK(offset == sizes[packed] && bytes.size() <= kMaxErofsExtent, "a file comes in order");
        sizes[packed] += bytes.size();
        HYDRANT_CHECK(sizes[packed] <= table->packed[packed].inode.size, "no more than the file");
        if (bytes.size() > left) return fail(Code::kCancelled, "enough");
        left -= bytes.size();
        return {};
      });
  for (size_t i = 0; unpacked && i < sizes.size(); ++i)
    HYDRANT_CHECK(sizes[i] == table->packed[i].inode.size, "all of the file");
  auto rows = place_erofs(*table);
  if (!rows) return 0;
  auto again = decode_files(encode_files(table->files, *rows), *rows);
  HYDRANT_CHECK(again && *again == table->files, "an index keeps what an image lists");
  const FileTable* tables[] = {&table->files};
  (void)merge(tables);
  return 0;
}
