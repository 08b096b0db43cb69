#include "proto/admin.h"

#include <concepts>
#include <type_traits>
#include <utility>

#include "proto/leaf_table.h"

namespace hydrant::proto {
namespace {

// Each message names its members once, in `describe`; Writer and Reader walk the same list.

template <class V>
void describe(V& v, DeviceProof& m) {
  v("root", m.root), v("size", m.size), v("granule", m.granule), v("layout_version", m.layout_version);
}
template <class V>
void describe(V& v, MountRequest& m) {
  v("dir", m.dir), v("fsid", m.fsid), v("devices", m.devices), v("domain_id", m.domain_id);
  v("meta_digest", m.meta_digest), v("source", m.source), v("image", m.image), v("read_ahead_kb", m.read_ahead_kb);
  v("proofs", m.proofs), v("file", m.file), v("pin", m.pin), v("front", m.front);
}
template <class V>
void describe(V& v, UmountRequest& m) {
  v("dir", m.dir), v("lazy", m.lazy);
}
template <class V>
void describe(V& v, RepairRequest& m) {
  v("dir", m.dir);
}
template <class V>
void describe(V&, ListRequest&) {}
template <class V>
void describe(V& v, StatMountRequest& m) {
  v("dir", m.dir);
}
template <class V>
void describe(V& v, IngestBeginRequest& m) {
  v("domain_id", m.domain_id), v("id", m.id);
}
template <class V>
void describe(V& v, IngestEndRequest& m) {
  v("domain_id", m.domain_id), v("id", m.id), v("size", m.size), v("proof", m.proof);
}
template <class V>
void describe(V& v, IngestAbortRequest& m) {
  v("domain_id", m.domain_id), v("id", m.id);
}
template <class V>
void describe(V& v, EngineRequest& m) {
  v("trace", m.trace), v("cookies", m.cookies);
}
template <class V>
void describe(V& v, TouchedRequest& m) {
  v("fsid", m.fsid);
}
template <class V>
void describe(V& v, ReopenRequest& m) {
  v("fsid", m.fsid);
}
template <class V>
void describe(V& v, WithdrawRequest& m) {
  v("id", m.id);
}
template <class V>
void describe(V& v, GcRequest& m) {
  v("at_most", m.at_most), v("unpin", m.unpin);
}
template <class V>
void describe(V& v, LearnRequest& m) {
  v("fsid", m.fsid);
}
template <class V>
void describe(V& v, PrefetchRequest& m) {
  v("fsid", m.fsid), v("paths", m.paths);
}
template <class V>
void describe(V& v, PrepareRequest& m) {
  v("source", m.source), v("as", m.as), v("platform", m.platform), v("docker_config", m.docker_config);
  v("plain_http", m.plain_http), v("index_only", m.index_only), v("prefetch", m.prefetch),
      v("background", m.background);
  v("push", m.push), v("convert_to", m.convert_to), v("sign_key", m.sign_key), v("trust", m.trust);
}
template <class V>
void describe(V& v, StatImageRequest& m) {
  v("fsid", m.fsid);
}
template <class V>
void describe(V&, StatusRequest&) {}
template <class V>
void describe(V&, StopRequest&) {}

template <class V>
void describe(V& v, Progress& m) {
  v("phase", m.phase), v("done", m.done), v("total", m.total), v("layers", m.layers);
}
template <class V>
void describe(V& v, MountReply& m) {
  v("dir", m.dir), v("fsid", m.fsid), v("ready_ms", m.ready_ms);
}
template <class V>
void describe(V& v, MountEntry& m) {
  v("dir", m.dir), v("fsid", m.fsid), v("source", m.source), v("state", m.state), v("devices", m.devices);
  v("mounted_at", m.mounted_at), v("front", m.front);
}
template <class V>
void describe(V& v, ListReply& m) {
  v("mounts", m.mounts);
}
template <class V>
void describe(V& v, DeviceStat& m) {
  v("id", m.id), v("size", m.size), v("present", m.present), v("durable", m.durable), v("front", m.front);
  v("reads", m.reads), v("verify", m.verify);
}
template <class V>
void describe(V& v, ObjectStat& m) {
  v("id", m.id), v("size", m.size);
}
template <class V>
void describe(V& v, StatMountReply& m) {
  v("dir", m.dir), v("fsid", m.fsid), v("source", m.source), v("state", m.state), v("mounted_at", m.mounted_at);
  v("devices", m.devices), v("metadata", m.metadata), v("counters", m.counters), v("image", m.image);
  v("front", m.front);
}
template <class V>
void describe(V& v, IngestBeginReply& m) {
  v("present", m.present);
}
template <class V>
void describe(V& v, LayerFacts& m) {
  v("digest", m.digest), v("size", m.size), v("diff_id", m.diff_id), v("device", m.device);
  v("device_size", m.device_size), v("lazy", m.lazy), v("why", m.why), v("toc", m.toc), v("pushed", m.pushed);
  v("proof", m.proof);
}
template <class V>
void describe(V& v, ImageFacts& m) {
  v("form", m.form), v("manifest", m.manifest), v("platform", m.platform), v("layers", m.layers);
  v("compressed_bytes", m.compressed_bytes), v("unpacked_bytes", m.unpacked_bytes), v("files", m.files);
  v("streamed_bytes", m.streamed_bytes), v("background", m.background), v("prefetch", m.prefetch);
}
template <class V>
void describe(V& v, PrepareReply& m) {
  v("fsid", m.fsid), v("devices", m.devices), v("domain_id", m.domain_id), v("meta_digest", m.meta_digest);
  v("source", m.source), v("pushed", m.pushed), v("converted", m.converted), v("image", m.image);
  v("proofs", m.proofs), v("file", m.file);
}
template <class V>
void describe(V& v, StatImageReply& m) {
  v("fetched_bytes", m.fetched_bytes), v("fills", m.fills), v("prefetched", m.prefetched), v("errors", m.errors);
}
template <class V>
void describe(V& v, DeviceTouches& m) {
  v("id", m.id), v("ranges", m.ranges);
}
template <class V>
void describe(V& v, TouchedReply& m) {
  v("mounted_at", m.mounted_at), v("devices", m.devices);
}
template <class V>
void describe(V& v, GcReply& m) {
  v("usage", m.usage), v("quota", m.quota), v("objects", m.objects), v("freed", m.freed);
  v("pinned", m.pinned), v("pins", m.pins);
}
template <class V>
void describe(V& v, PrefetchReply& m) {
  v("runs", m.runs), v("files", m.files), v("bytes", m.bytes);
}
struct KernelFacts {
  bool& erofs_file_backed;
  bool& erofs_over_loops;
};
template <class V>
void describe(V& v, KernelFacts& m) {
  v("erofs_file_backed", m.erofs_file_backed), v("erofs_over_loops", m.erofs_over_loops);
}
template <class V>
void describe(V& v, StatusReply& m) {
  KernelFacts kernel{m.erofs_file_backed, m.erofs_over_loops};
  v("pid", m.pid), v("version", m.version), v("rss_bytes", m.rss_bytes), v("attached", m.attached);
  v("kernel", kernel), v("landlock", m.landlock), v("writes", m.writes);
}
template <class V>
void describe(V& v, EngineCache& m) {
  v("tag", m.tag), v("dir", m.dir), v("state", m.state), v("on_demand", m.on_demand), v("culling", m.culling);
  v("objects", m.objects), v("requests", m.requests), v("pins", m.pins);
}
template <class V>
void describe(V& v, EngineVolume& m) {
  v("key", m.key), v("cookies", m.cookies), v("acquired", m.acquired);
}
template <class V>
void describe(V& v, EngineCookie& m) {
  v("volume", m.volume), v("key", m.key), v("state", m.state), v("uses", m.uses), v("size", m.size);
  v("present", m.present), v("reads", m.reads);
}
template <class V>
void describe(V& v, EngineReply& m) {
  v("trace", m.trace), v("caches", m.caches), v("volumes", m.volumes), v("cookies", m.cookies);
  v("counters", m.counters);
}
template <class V>
void describe(V&, EmptyReply&) {}

struct Writer {
  Json out = Json::object();

  template <class T>
  void operator()(const char* name, T& value) {
    out[name] = to_json(value);
  }

  static Json to_json(std::string& value) { return value; }
  static Json to_json(bool& value) { return value; }
  template <std::integral T>
  static Json to_json(T& value) {
    return value;
  }
  template <class T>
  static Json to_json(std::optional<T>& value) {
    return value ? to_json(*value) : Json(nullptr);
  }
  static Json to_json(std::map<std::string, uint64_t>& value) { return value; }
  template <class T>
  static Json to_json(std::vector<T>& values) {
    Json array = Json::array();
    for (auto& value : values) array.push_back(to_json(value));
    return array;
  }
  template <class T>
  requires std::is_class_v<T>
  static Json to_json(T& message) {
    Writer inner;
    describe(inner, message);
    return std::move(inner.out);
  }
};

// Remembers the first member whose type is wrong.
struct Reader {
  const Json& in;
  std::string wrong = {};

  template <class T>
  void operator()(const char* name, T& value) {
    if (!wrong.empty()) return;
    auto member = in.find(name);
    if (member == in.end()) return;
    if (!from_json(*member, value)) wrong = name;
  }

  static bool from_json(const Json& json, std::string& value) {
    if (!json.is_string()) return false;
    value = json.get_ref<const std::string&>();
    return true;
  }
  static bool from_json(const Json& json, bool& value) {
    if (!json.is_boolean()) return false;
    value = json.get<bool>();
    return true;
  }
  template <std::integral T>
  static bool from_json(const Json& json, T& value) {
    if (json.is_number_unsigned()) {
      auto number = json.get<uint64_t>();
      value = static_cast<T>(number);
      return std::in_range<T>(number);
    }
    if (json.is_number_integer()) {
      auto number = json.get<int64_t>();
      value = static_cast<T>(number);
      return std::in_range<T>(number);
    }
    return false;
  }
  template <class T>
  static bool from_json(const Json& json, std::optional<T>& value) {
    if (json.is_null()) return true;
    return from_json(json, value.emplace());
  }
  static bool from_json(const Json& json, std::map<std::string, uint64_t>& value) {
    if (!json.is_object()) return false;
    for (const auto& [key, number] : json.items()) {
      if (!from_json(number, value[key])) return false;
    }
    return true;
  }
  template <class T>
  static bool from_json(const Json& json, std::vector<T>& values) {
    if (!json.is_array()) return false;
    for (const auto& item : json) {
      if (!from_json(item, values.emplace_back())) return false;
    }
    return true;
  }
  template <class T>
  requires std::is_class_v<T>
  static bool from_json(const Json& json, T& message) {
    if (!json.is_object()) return false;
    Reader inner{json};
    describe(inner, message);
    return inner.wrong.empty();
  }
};

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

template <class Request>
std::string encode_any(const Request& request) {
  return std::visit(
      [](auto message) {  // by value: `describe` takes one kind of reference for both ways
        Json json = Writer::to_json(message);
        json["op"] = message.kOp;
        return dump(json);
      },
      request);
}

template <class Variant, size_t I = 0>
Result<Variant> decode_any(const std::string& op, const Json& json) {
  if constexpr (I == std::variant_size_v<Variant>) {
    return fail(Code::kInvalid, "unknown request \"" + op.substr(0, 40) + "\"");
  } else {
    using Message = std::variant_alternative_t<I, Variant>;
    if (op != Message::kOp) return decode_any<Variant, I + 1>(op, json);
    Message message;
    Reader reader{json};
    describe(reader, message);
    if (!reader.wrong.empty()) return fail(Code::kInvalid, op + ": member \"" + reader.wrong + "\" has the wrong type");
    return Variant(std::move(message));
  }
}

template <class Variant>
Result<Variant> decode_request(std::string_view line) {
  HYDRANT_TRY(Json json, parse_json(line));
  std::string op;
  if (!json.is_object() || !json.contains("op") || !Reader::from_json(json["op"], op)) {
    return fail(Code::kInvalid, "request without \"op\"");
  }
  return decode_any<Variant>(op, json);
}

}  // namespace

Result<Json> parse_json(std::string_view text, size_t most_bytes, int most_levels) {
  if (text.size() > most_bytes)
    return fail(Code::kInvalid, "JSON text is longer than " + std::to_string(most_bytes >> 20) + " MiB");
  bool too_deep = false;
  auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep |= depth > most_levels;
    return depth <= most_levels;
  };
  Json json = Json::parse(text, limit_depth, /*allow_exceptions=*/false);
  if (json.is_discarded() || too_deep) return fail(Code::kInvalid, "not JSON");
  return json;
}

std::string encode(const HydrantdRequest& request) { return encode_any(request); }
std::string encode(const FetchdRequest& request) { return encode_any(request); }

Result<HydrantdRequest> decode_hydrantd_request(std::string_view line) { return decode_request<HydrantdRequest>(line); }
Result<FetchdRequest> decode_fetchd_request(std::string_view line) { return decode_request<FetchdRequest>(line); }

template <class Reply>
std::string encode_reply(const Reply& reply) {
  Reply copy = reply;
  Json json = Writer::to_json(copy);
  json["ok"] = true;
  return dump(json);
}

template <class Reply>
Result<Reply> decode_reply(const Json& answer) {
  Reply reply;
  if (!Reader::from_json(answer, reply)) return fail(Code::kInvalid, "an answer has a member of the wrong type");
  return reply;
}

#define HYDRANT_REPLY(Reply)                       \
  template std::string encode_reply(const Reply&); \
  template Result<Reply> decode_reply<Reply>(const Json&)
HYDRANT_REPLY(MountReply);
HYDRANT_REPLY(ListReply);
HYDRANT_REPLY(StatMountReply);
HYDRANT_REPLY(IngestBeginReply);
HYDRANT_REPLY(TouchedReply);
HYDRANT_REPLY(GcReply);
HYDRANT_REPLY(PrefetchReply);
HYDRANT_REPLY(PrepareReply);
HYDRANT_REPLY(StatImageReply);
HYDRANT_REPLY(StatusReply);
HYDRANT_REPLY(EngineReply);
HYDRANT_REPLY(EmptyReply);
#undef HYDRANT_REPLY

std::string encode_error(const Error& error) {
  return dump(Json{{"error", {{"code", to_string(error.code)}, {"message", error.what}}}});
}

std::string encode_progress(const Progress& progress) {
  Progress copy = progress;
  Json json = Writer::to_json(copy);
  json["event"] = "progress";
  return dump(json);
}

Result<Answer> decode_answer(std::string_view line) {
  HYDRANT_TRY(Json json, parse_json(line));
  if (!json.is_object()) return fail(Code::kInvalid, "an answer is not a JSON object");
  if (json.contains("event")) {
    Progress progress;
    if (!Reader::from_json(json, progress)) return fail(Code::kInvalid, "a progress line has a wrong member");
    return Answer(std::move(progress));
  }
  if (json.contains("error")) {
    const Json& error = json["error"];
    std::string code, message;
    if (!error.is_object() || !error.contains("code") || !Reader::from_json(error["code"], code) ||
        !error.contains("message") || !Reader::from_json(error["message"], message)) {
      return fail(Code::kInvalid, "an error answer without code and message");
    }
    return Answer(Error{.code = parse_code(code), .what = std::move(message)});
  }
  bool ok = false;
  if (!json.contains("ok") || !Reader::from_json(json["ok"], ok) || !ok) {
    return fail(Code::kInvalid, "an answer is neither progress, nor ok, nor an error");
  }
  return Answer(std::move(json));
}

DeviceProof to_text(const MerkleProof& proof) {
  return {proof.root.text(), proof.shape.device_size, proof.shape.granule, proof.shape.layout_version};
}

Result<std::optional<MerkleProof>> parse_proof(const DeviceProof& proof) {
  if (proof.root.empty()) return std::nullopt;
  MerkleProof out;
  HYDRANT_TRY(out.root, Digest::parse(proof.root));
  out.shape = {proof.size, proof.granule, proof.layout_version};
  HYDRANT_TRY_VOID(check_shape(out.shape));
  return out;
}

std::string to_text(const ImageFacts& facts) {
  ImageFacts copy = facts;
  return dump(Writer::to_json(copy));
}

Result<ImageFacts> parse_image_facts(std::string_view text) {
  HYDRANT_TRY(Json json, parse_json(text));
  return decode_reply<ImageFacts>(json);
}
template Result<ImageFacts> decode_reply<ImageFacts>(const Json&);

bool is_utf8(std::string_view text) {
  // The JSON library validates what it writes: replacing shows in the length or the text.
  std::string quoted = dump(Json(text));
  return quoted.find("\xEF\xBF\xBD") == quoted.npos || text.find("\xEF\xBF\xBD") != text.npos;
}

Code parse_code(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Code::kIo); ++i) {
    if (to_string(static_cast<Code>(i)) == name && i != 0) return static_cast<Code>(i);
  }
  return Code::kIo;
}

}  // namespace hydrant::proto
