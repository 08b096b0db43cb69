// The admin protocol: what hydrant says to hydrantd and hydrant-fetchd, one JSON object a line. Encoding and decoding
// only; base/line_socket.h carries the lines.
//
// A request has "op". It is answered by any number of progress lines, then by one final line that has either "ok":true
// and the result, or "error" with a code (the names of `to_string(Code)`) and a sentence for people. Unknown members
// are ignored, so either side may be the newer one; missing members take the defaults below.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "proto/merkle.h"

namespace hydrant::proto {

using Json = nlohmann::json;

// Longer lines are refused by both sides.
constexpr size_t kAdminLineLimit = 1 << 20;

// What the bytes of a device must hash to (proto/merkle.h). An empty root: nobody knows.
struct DeviceProof {
  std::string root = {};  // "sha256:…"
  uint64_t size = 0;
  uint32_t granule = 0;
  uint32_t layout_version = 0;
  bool operator==(const DeviceProof&) const = default;
};
DeviceProof to_text(const MerkleProof& proof);
// Nothing for an empty root. kInvalid, kUnsupported.
Result<std::optional<MerkleProof>> parse_proof(const DeviceProof& proof);

// ---- Requests of hydrantd (run/hydrantd.sock).

// Mounts the metadata object `fsid` with its devices at `dir`. Errors: kInvalid (dir missing or of the wrong kind),
// kBusy (something is mounted there), kUnsupported (no file-backed EROFS, no mounts of single files), kTooSlow (no user
// daemon answered), kCorrupt (metadata digest), kNoSpace, kDenied.
struct MountRequest {
  static constexpr std::string_view kOp = "mount";
  std::string dir = {};  // absolute
  std::string fsid = {};
  std::vector<std::string> devices = {};  // in the metadata's slot order
  std::string domain_id = {};             // empty: none
  std::string meta_digest = {};           // "sha256:…", empty: not known
  std::string source = {};                // what people asked for, shown by list
  std::string image = {};                 // fetchd's facts as JSON text, kept and given back as it is
  uint32_t read_ahead_kb = 0;             // 0: hydrantd's default
  std::vector<DeviceProof> proofs = {};   // one a device, or none at all; hydrantd checks what it is given
  std::string file = {};                  // of the image's root: it alone stands at `dir`, which is a file then
  bool pin = false;                       // what it consists of is never culled, not after the mount either
  std::string front = {};                 // fuse | fanotify; empty or auto: as hydrantd was told, else fuse
};

// Errors: kNotFound (no mount of ours), kBusy (open files).
struct UmountRequest {
  static constexpr std::string_view kOp = "umount";
  std::string dir = {};
  bool lazy = false;
};

// Takes a mount of a dead hydrantd down and mounts the same again, as its record says. Errors: kNotFound, kInvalid (it
// is alive), and those of mount, after which nothing is mounted there.
struct RepairRequest {
  static constexpr std::string_view kOp = "repair";
  std::string dir = {};
};

struct ListRequest {
  static constexpr std::string_view kOp = "list";
};

struct StatMountRequest {
  static constexpr std::string_view kOp = "stat";
  std::string dir = {};
};

// Uses the cookie as a mount would, so that the user daemon gets its OPEN and may fill the whole object.
struct IngestBeginRequest {
  static constexpr std::string_view kOp = "ingest.begin";
  std::string domain_id = {};
  std::string id = {};
};

// The object is complete and `size` bytes long: resize and keep it.
struct IngestEndRequest {
  static constexpr std::string_view kOp = "ingest.end";
  std::string domain_id = {};
  std::string id = {};
  uint64_t size = 0;
  DeviceProof proof = {};  // with it hydrantd hashes the whole object before it answers; kCorrupt: it is retired
};

// Retires the object. A connection that closes between begin and end does the same.
struct IngestAbortRequest {
  static constexpr std::string_view kOp = "ingest.abort";
  std::string domain_id = {};
  std::string id = {};
};

// Lists what the engine has; with `trace`, first chooses its trace points (docs/cachefiles.md 10.3). Errors: kInvalid
// (no such point).
struct EngineRequest {
  static constexpr std::string_view kOp = "engine";
  std::optional<std::string> trace = {};
  uint64_t cookies = 1000;  // at most that many are listed
};

// What has been read of a mounted image in its first minutes. Errors: kNotFound (it is not mounted).
struct TouchedRequest {
  static constexpr std::string_view kOp = "touched";
  std::string fsid = {};
};

// Has the user daemon open what is not complete of a mounted image, as a reader who misses a byte would: one that has
// been started anew holds no handles. Answered before it has. Errors: kNotFound (it is not mounted).
struct ReopenRequest {
  static constexpr std::string_view kOp = "reopen";
  std::string fsid = {};
};

// What was read of an object turned out to be a lie: the cache drops what it has of it, and has the kernel forget what
// it has of the mounts that use it, so that they ask the user daemon, who has an error. Answered when that is done.
// Errors: kNotFound (no mount uses it), kBusy (one reads the cache's file itself, or is dead: it must be unmounted).
struct WithdrawRequest {
  static constexpr std::string_view kOp = "withdraw";
  std::string id = {};
};

// Makes room in the cache: as its limits say, or, with `at_most`, until so many bytes are left of what nobody uses.
// With `unpin`, the source of a mount that pinned, that goes first. Errors: kNotFound (it is not pinned).
struct GcRequest {
  static constexpr std::string_view kOp = "gc";
  std::optional<uint64_t> at_most = {};
  std::string unpin = {};
};

// ---- Requests of fetchd (run/fetchd.sock).

// Resolves a source and makes everything a mount needs, streaming layers that have no index yet.
struct PrepareRequest {
  static constexpr std::string_view kOp = "prepare";
  std::string source = {};
  std::string as = "auto";              // image | erofs | tar | file | auto
  std::string platform = {};            // "linux/arm64"; empty: this machine's
  std::string docker_config = {};       // content of docker's config.json, may be empty
  std::optional<bool> plain_http = {};  // unset: only for loopback hosts
  bool index_only = false;              // make and keep the indexes, put nothing into the cache
  bool push = false;                    // with index_only: and put them beside the image in its registry
  std::string convert_to = {};          // with index_only: a copy of the image that names them, under another tag
  std::string sign_key = {};            // PEM of the private key that signs what is pushed; empty: unsigned
  std::string trust = {};               // of pushed indexes: strict | late | off; empty: strict
  bool background = false;              // and, with `prefetch`, the rest of it while nobody wants anything
  bool prefetch = true;                 // what its prefetch list names, once it is mounted; and learn from its start
};

// Keeps what the image's start has read so far as its prefetch list, merged with what is known of earlier ones. Errors:
// kNotFound (not mounted, or no image of ours), kInvalid (nothing of it was read through hydrantd).
struct LearnRequest {
  static constexpr std::string_view kOp = "learn";
  std::string fsid = {};
};

// Fetches ahead of any reader: the files and directories at `paths`, or what the image's prefetch list names. Answered
// when it is known what that is, not when it is here. Errors: kNotFound (no such image, path, or list).
struct PrefetchRequest {
  static constexpr std::string_view kOp = "prefetch";
  std::string fsid = {};
  std::vector<std::string> paths = {};  // from the image's root
};

struct StatImageRequest {
  static constexpr std::string_view kOp = "stat";
  std::string fsid = {};
};

// ---- Requests of both.

struct StatusRequest {
  static constexpr std::string_view kOp = "status";
};

// Answered when everything is put away; then the daemon exits.
struct StopRequest {
  static constexpr std::string_view kOp = "stop";
};

using HydrantdRequest =
    std::variant<MountRequest, UmountRequest, RepairRequest, ListRequest, StatMountRequest, IngestBeginRequest,
                 IngestEndRequest, IngestAbortRequest, EngineRequest, TouchedRequest, ReopenRequest, WithdrawRequest,
                 GcRequest, StatusRequest, StopRequest>;
using FetchdRequest =
    std::variant<PrepareRequest, LearnRequest, PrefetchRequest, StatImageRequest, StatusRequest, StopRequest>;

// One line without its newline. Text that is not UTF-8 is sent with replacement characters: callers check paths.
std::string encode(const HydrantdRequest& request);
std::string encode(const FetchdRequest& request);

// kInvalid for anything but a request of that daemon.
Result<HydrantdRequest> decode_hydrantd_request(std::string_view line);
Result<FetchdRequest> decode_fetchd_request(std::string_view line);

// ---- Answers.

struct Progress {
  std::string phase = {};  // resolve | index | stream | merge
  uint64_t done = 0;       // stored bytes
  uint64_t total = 0;
  uint64_t layers = 0;
};

struct MountReply {
  std::string dir = {};
  std::string fsid = {};
  uint64_t ready_ms = 0;
};

struct MountEntry {
  std::string dir = {};
  std::string fsid = {};
  std::string source = {};
  std::string state = {};  // live | dead
  uint64_t devices = 0;
  int64_t mounted_at = 0;  // seconds since 1970
  std::string front = {};  // fuse | fanotify
};

struct ListReply {
  std::vector<MountEntry> mounts = {};
};

struct DeviceStat {
  std::string id = {};
  uint64_t size = 0;        // bytes
  uint64_t present = 0;     // bytes that are here
  uint64_t durable = 0;     // bytes that survive a power cut
  std::string front = {};   // fuse | fanotify | file: nobody is asked
  std::string verify = {};  // who has checked what is present: engine (by the Merkle root) | fetchd
  uint64_t reads = 0;       // READ requests sent
};

struct ObjectStat {
  std::string id = {};
  uint64_t size = 0;
};

struct StatMountReply {
  std::string dir = {};
  std::string fsid = {};
  std::string source = {};
  std::string state = {};
  int64_t mounted_at = 0;
  std::vector<DeviceStat> devices = {};
  ObjectStat metadata = {};
  std::map<std::string, uint64_t> counters = {};
  std::string image = {};  // as given to mount
  std::string front = {};  // fuse | fanotify
};

struct IngestBeginReply {
  bool present = false;  // the object is here and complete: nothing to do
};

struct LayerFacts {
  std::string digest = {};
  uint64_t size = 0;  // stored bytes
  std::string diff_id = {};
  std::string device = {};  // object id
  uint64_t device_size = 0;
  bool lazy = false;
  std::string why = {};     // when not lazy: the reason
  std::string toc = {};     // what kind of table of contents it is read by: "eStargz", "zstd:chunked"; empty: an index
  std::string pushed = {};  // it is read by an index that was pushed: who vouches for it; empty: by this node's own
  DeviceProof proof = {};
};

// What fetchd knows of an image; travels through hydrantd as opaque text (`MountRequest::image`).
struct ImageFacts {
  std::string form = "image";  // image | file | tar: of the others there is no manifest and no platform
  std::string manifest = {};
  std::string platform = {};
  std::vector<LayerFacts> layers = {};
  uint64_t compressed_bytes = 0;
  uint64_t unpacked_bytes = 0;
  uint64_t files = 0;
  uint64_t streamed_bytes = 0;  // stored bytes read by this prepare to make indexes
  // As it was asked for: see PrepareRequest.
  bool background = false;
  bool prefetch = true;
};

struct PrepareReply {
  std::string fsid = {};
  std::vector<std::string> devices = {};
  std::vector<DeviceProof> proofs = {};  // one a device, or none at all
  std::string domain_id = {};
  std::string meta_digest = {};
  std::string source = {};     // canonical text
  std::string file = {};       // name of the only file there is; empty: a tree
  std::string pushed = {};     // digest of the artifact that was pushed
  std::string converted = {};  // digest of the manifest that names it
  ImageFacts image = {};
};

struct DeviceTouches {
  std::string id = {};
  std::vector<uint64_t> ranges = {};  // in the order of their reading: offset, length, ms since the mount, and so on
};

struct TouchedReply {
  int64_t mounted_at = 0;  // seconds since 1970
  std::vector<DeviceTouches> devices = {};
};

// Bytes are those that the disk has allocated.
struct GcReply {
  uint64_t usage = 0;    // of the cache, now
  uint64_t quota = 0;    // 0: none
  uint64_t objects = 0;  // deleted
  uint64_t freed = 0;
  uint64_t pinned = 0;                 // of `usage`: what is never culled
  std::vector<std::string> pins = {};  // its sources
};

// Of a prefetch list: as it is now kept, or what of it is on its way.
struct PrefetchReply {
  uint64_t runs = 0;  // starts that it was learned from; 0 for paths
  uint64_t files = 0;
  uint64_t bytes = 0;  // of files
};

struct StatImageReply {
  uint64_t fetched_bytes = 0;  // stored bytes from the origin since this daemon started, of this image's layers
  uint64_t fills = 0;
  uint64_t prefetched = 0;                      // fills that no reader asked for: of a list, or of paths
  std::map<std::string, uint64_t> errors = {};  // reason: count
};

struct StatusReply {
  int64_t pid = 0;
  std::string version = {};
  uint64_t rss_bytes = 0;
  bool attached = false;          // a user daemon is on the control channel
  bool erofs_file_backed = true;  // hydrantd only, as the next
  bool erofs_over_loops = false;  // each file behind a loop device, where the kernel mounts none
  // What no file of /proc tells. hydrant-fetchd only.
  int64_t landlock = 0;                  // the kernel's version of what the process is under; 0: nothing
  std::vector<std::string> writes = {};  // what that leaves writable
};

struct EngineCache {
  std::string tag = {};
  std::string dir = {};
  std::string state = {};  // -, P, A, E or W
  bool on_demand = false;
  bool culling = false;
  uint64_t objects = 0;
  uint64_t requests = 0;  // that the user daemon has not answered
  uint64_t pins = 0;      // the channel and handles
};

struct EngineVolume {
  std::string key = {};
  uint64_t cookies = 0;
  bool acquired = false;
};

struct EngineCookie {
  std::string volume = {};
  std::string key = {};    // as the name of its file
  std::string state = {};  // one letter
  uint64_t uses = 0;
  uint64_t size = 0;
  uint64_t present = 0;
  uint64_t reads = 0;
};

struct EngineReply {
  std::string trace = {};  // the points that are on
  std::vector<EngineCache> caches = {};
  std::vector<EngineVolume> volumes = {};
  std::vector<EngineCookie> cookies = {};
  std::map<std::string, uint64_t> counters = {};
};

struct EmptyReply {};

// The final line of a success. Instantiated for every *Reply above.
template <class Reply>
std::string encode_reply(const Reply& reply);
std::string encode_error(const Error& error);
std::string encode_progress(const Progress& progress);

// A line that came back. kInvalid when it is none of the three; the error the peer reports is a value here, because the
// caller must tell it from a broken line.
using Answer = std::variant<Progress, Json, Error>;
Result<Answer> decode_answer(std::string_view line);

// From the Json of a success. kInvalid when a member has the wrong type.
template <class Reply>
Result<Reply> decode_reply(const Json& answer);

std::string to_text(const ImageFacts& facts);
Result<ImageFacts> parse_image_facts(std::string_view text);

// Parses JSON from outside: at most so many bytes, so many levels deep, kInvalid otherwise.
Result<Json> parse_json(std::string_view text, size_t most_bytes = kAdminLineLimit, int most_levels = 32);

// Whether text arrives as it was sent: JSON carries UTF-8 alone.
bool is_utf8(std::string_view text);

// The inverse of to_string(Code); kIo for names this version does not know.
Code parse_code(std::string_view name);

}  // namespace hydrant::proto
