// What hydrantd checks devices with: their leaves, where it looks for them, and the root, which travels with the mount.
#pragma once

#include <span>

#include "base/error.h"
#include "fetch/paths.h"
#include "image/index/layer_index.h"
#include "proto/admin.h"

namespace hydrant::fetch {

// Writes the leaves down, unless they are there. The proof is empty for an index without leaves, as those by a table of
// contents are.
Result<proto::DeviceProof> keep_leaves(const Paths& paths, const image::LayerIdent& ident, const Digest& root,
                                       std::span<const Digest> leaves);

// Whether hydrantd can find what belongs to the proof.
bool have_leaves(const Paths& paths, const proto::DeviceProof& proof);

}  // namespace hydrant::fetch
