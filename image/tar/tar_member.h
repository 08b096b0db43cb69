// From a member's headers to an entry of the tree.
#pragma once

#include <optional>

#include "base/error.h"
#include "image/file_table.h"
#include "image/tar/tar_header.h"
#include "image/tar/tar_pax.h"

namespace hydrant::image {

// Links, devices, directories and fifos: what their size field says is not there.
inline bool has_payload(char type) { return type < '1' || type > '6'; }

// `header` with the long names, and `pax` with the global values already applied. Nothing for members that are in no
// tree (AUFS leftovers). The size of a sparse file is left to the caller. The rules stand at TarReader.
Result<std::optional<FileEntry>> make_entry(const TarHeader& header, const PaxValues& pax);

}  // namespace hydrant::image
