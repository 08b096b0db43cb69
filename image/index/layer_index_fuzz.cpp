// The section decoders (no digest stands between them and a lying index) and the loader.
#include <optional>

#include "image/index/index_sections.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor in(std::as_bytes(std::span(data, size)));
  const auto which = in.take<uint8_t>();
  LayerIdent ident{.stored_size = 1 << 20,
                   .media_type = {},
                   .tar_size = 4 << 20,
                   .compression = Compression::kGzip,
                   .stored_end = 1 << 20,
                   .device_size = 4 << 20,
                   .granule = 64 << 10,
                   .generator = {}};
  const std::vector<LayoutRow> rows{{0, 512, 5000}, {8192, 6144, 100'000}, {110'592, 107'008, 1}};
  switch (which % 8) {
    case 0: (void)decode_ident(in.rest()); break;
    case 1: (void)decode_spans(in.rest(), ident, 100'000); break;
    case 2: (void)decode_rows(in.rest(), ident); break;
    case 3: (void)decode_leaves(in.rest(), ident); break;
    case 4: (void)decode_files(in.rest(), rows); break;
    case 5: (void)decode_spans(in.rest(), ident, 100'000, true); break;
    case 7: (void)decode_decoded(in.rest()); break;
    default:
      if (auto index = LayerIndex::load(to_buffer(in.rest()), {})) {
        (void)(*index)->files();
        for (size_t i = 0; i < (*index)->span_count(); ++i) (void)(*index)->window(i);
      }
  }
  return 0;
}
