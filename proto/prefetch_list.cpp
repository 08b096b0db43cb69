#include "proto/prefetch_list.h"

#include <algorithm>

#include "proto/admin.h"

namespace hydrant::proto {

namespace {

constexpr uint64_t kVersion = 1;
constexpr int kMaxDepth = 8;

tl::unexpected<Error> bad(const std::string& what) { return fail(Code::kInvalid, "prefetch list: " + what); }

Result<uint64_t> number(const Json& object, const char* name) {
  auto member = object.find(name);
  if (member == object.end()) return 0;
  if (!member->is_number_unsigned()) return bad(std::string("\"") + name + "\" is no count");
  return member->get<uint64_t>();
}

Result<std::string> text(const Json& object, const char* name) {
  auto member = object.find(name);
  if (member == object.end() || !member->is_string()) return bad(std::string("without \"") + name + "\"");
  return member->get<std::string>();
}

Result<PrefetchEntry> decode_entry(const Json& json) {
  if (!json.is_object()) return bad("an entry is no object");
  PrefetchEntry entry;
  HYDRANT_TRY(auto layer, text(json, "layer"));
  HYDRANT_TRY(entry.layer, Digest::parse(layer));
  HYDRANT_TRY(entry.path, text(json, "path"));
  HYDRANT_TRY(entry.offset, number(json, "off"));
  HYDRANT_TRY(entry.length, number(json, "len"));
  HYDRANT_TRY(uint64_t ms, number(json, "t"));
  HYDRANT_TRY(uint64_t hits, number(json, "hits"));
  if (entry.length > INT64_MAX || entry.offset > INT64_MAX - entry.length) return bad("an entry beyond any file");
  if (ms > UINT32_MAX || hits > UINT32_MAX) return bad("an entry's count is too large");
  entry.ms = static_cast<uint32_t>(ms);
  entry.hits = std::max<uint32_t>(1, static_cast<uint32_t>(hits));
  return entry;
}

}  // namespace

std::string encode(const PrefetchList& list) {
  Json entries = Json::array();
  for (const PrefetchEntry& entry : list.entries)
    entries.push_back({{"layer", entry.layer.text()},
                       {"path", entry.path},
                       {"off", entry.offset},
                       {"len", entry.length},
                       {"t", entry.ms},
                       {"p", 1},
                       {"hits", entry.hits}});
  Json json = {
      {"version", kVersion}, {"subject", list.subject}, {"recorded", {{"runs", list.runs}}}, {"entries", entries}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<PrefetchList> decode_prefetch_list(std::string_view input) {
  auto parsed = parse_json(input, kMaxPrefetchText, kMaxDepth);
  if (!parsed) return bad(parsed.error().what);
  const Json& json = *parsed;
  if (!json.is_object()) return bad("not a JSON object");
  HYDRANT_TRY(uint64_t version, number(json, "version"));
  if (version != kVersion)
    return fail(Code::kUnsupported, "prefetch list of version " + std::to_string(version) + "; this one reads 1");
  PrefetchList list;
  HYDRANT_TRY(list.subject, text(json, "subject"));
  if (auto recorded = json.find("recorded"); recorded != json.end() && recorded->is_object()) {
    HYDRANT_TRY(uint64_t runs, number(*recorded, "runs"));
    list.runs = static_cast<uint32_t>(std::min<uint64_t>(runs, UINT32_MAX));
  }
  auto entries = json.find("entries");
  if (entries == json.end() || !entries->is_array()) return bad("without \"entries\"");
  if (entries->size() > kMaxPrefetchEntries) return bad("more than 65536 entries");
  for (const Json& each : *entries) {
    HYDRANT_TRY(auto entry, decode_entry(each));
    list.entries.push_back(std::move(entry));
  }
  return list;
}

}  // namespace hydrant::proto
