// Sources that the daemon serves of its own accord, for a kernel that mounts them: from the words of a command line to
// the command that mounts the result.
#pragma once

#include <stop_token>
#include <string>
#include <string_view>

#include "fetch/catalogue.h"
#include "fetch/prepare.h"

namespace hydrant::fetch {

// `[ID=]SOURCE`.
struct Served {
  std::string name;    // the fsid to mount it by; empty: the image's own
  std::string source;  // paths are absolute
};

// kInvalid: a malformed source; an ID that is not 1..200 letters, digits, '.', '_' and '-'. Relative paths are taken
// from `working_dir`.
Result<Served> parse_served(std::string_view text, const std::string& working_dir);

// Prepares the source, a file as the EROFS image it holds if it does, and records its name. kExists: the name stands
// for another version already, whose blocks the cache may have.
Result<proto::PrepareReply> prepare_served(const Served& served, const std::string& docker_config, Preparer& preparer,
                                           Catalogue& catalogue, std::stop_token stop);

// "mount -t erofs -o fsid=…,domain_id=… none DIR". The image names its devices itself.
std::string mount_command(const Served& served, const proto::PrepareReply& image);

}  // namespace hydrant::fetch
