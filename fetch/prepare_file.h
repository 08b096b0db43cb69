// A single remote file as a mount: a tree that holds this file alone, on a device that is the remote object as it is;
// or, of an EROFS image, its own tree.
#pragma once

#include <string>

#include "fetch/catalogue.h"
#include "fetch/origins.h"
#include "fetch/paths.h"
#include "proto/admin.h"

namespace hydrant::fetch {

// Asks the origin for size and version, writes the metadata image and records both objects; fetches no content. The
// device's name holds the version, so what the cache has of another version is never part of this one.
// kUnsupported: an origin that cannot be read in the middle, or does not tell one version from the next.
Result<proto::PrepareReply> prepare_file(const proto::SourceReference& source, std::optional<bool> plain_http,
                                         const Paths& paths, Catalogue& catalogue, Origins& origins);

// The same for an EROFS image, which is the only object of its mount. It has no digest, so it is mounted on demand, in
// no domain. kCorrupt: not EROFS; kUnsupported: it keeps its data on other devices, or as above.
Result<proto::PrepareReply> prepare_erofs(const proto::SourceReference& source, std::optional<bool> plain_http,
                                          Catalogue& catalogue, Origins& origins);

// A remote object that can be read in parts of one version; kUnsupported as above.
Result<std::shared_ptr<source::Blob>> open_versioned(const proto::SourceReference& source, Origins& origins);

// What the file is called in its mount: the last part of the source's path, decoded and cut to what a
// directory can hold; "file" without one.
std::string file_name(const proto::SourceReference& source);

}  // namespace hydrant::fetch
