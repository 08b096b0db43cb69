#include "fetch/leaves.h"

#include <sys/stat.h>

#include "base/file.h"
#include "proto/leaf_table.h"

namespace hydrant::fetch {

Result<proto::DeviceProof> keep_leaves(const Paths& paths, const image::LayerIdent& ident, const Digest& root,
                                       std::span<const Digest> leaves) {
  if (leaves.empty()) return proto::DeviceProof{};
  const proto::MerkleProof proof{{ident.device_size, ident.granule, ident.layout_version}, root};
  if (proto::DeviceProof text = proto::to_text(proof); have_leaves(paths, text)) return text;
  const std::string path = paths.leaves(root);
  HYDRANT_TRY_VOID(make_directories(path.substr(0, path.rfind('/'))));
  HYDRANT_TRY_VOID(write_file_atomic(path, proto::encode_leaf_table(proof.shape, root, leaves)));
  return proto::to_text(proof);
}

bool have_leaves(const Paths& paths, const proto::DeviceProof& proof) {
  auto parsed = proto::parse_proof(proof);
  if (!parsed) return false;
  if (!*parsed) return true;
  struct stat status {};
  return ::stat(paths.leaves((*parsed)->root).c_str(), &status) == 0 &&
         static_cast<uint64_t>(status.st_size) == proto::leaf_table_size((*parsed)->shape);
}

}  // namespace hydrant::fetch
