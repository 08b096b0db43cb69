#include "image/toc/toc_json.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>

#include "image/tar/tar_pax.h"
#include "image/toc/toc_reference.h"

namespace hydrant::image {
namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxXattrs = 4096;  // of one entry

tl::unexpected<Error> corrupt(std::string what) {
  return fail(Code::kCorrupt, "table of contents: " + std::move(what));
}

enum class Field {
  kUnknown,
  kName,
  kType,
  kLinkName,
  kModtime,
  kDigest,
  kChunkDigest,
  kChunkType,
  kSize,
  kMode,
  kUid,
  kGid,
  kDevMajor,
  kDevMinor,
  kOffset,
  kInnerOffset,
  kChunkOffset,
  kChunkSize,
  kXattrs,
};

constexpr std::pair<std::string_view, Field> kFields[] = {
    {"name", Field::kName},
    {"type", Field::kType},
    {"linkName", Field::kLinkName},
    {"modtime", Field::kModtime},
    {"digest", Field::kDigest},
    {"chunkDigest", Field::kChunkDigest},
    {"chunkType", Field::kChunkType},
    {"size", Field::kSize},
    {"mode", Field::kMode},
    {"uid", Field::kUid},
    {"gid", Field::kGid},
    {"devMajor", Field::kDevMajor},
    {"devMinor", Field::kDevMinor},
    {"offset", Field::kOffset},
    {"innerOffset", Field::kInnerOffset},
    {"chunkOffset", Field::kChunkOffset},
    {"chunkSize", Field::kChunkSize},
    {"xattrs", Field::kXattrs},
};

Field field_of(std::string_view key) {
  for (const auto& [name, field] : kFields)
    if (name == key) return field;
  return Field::kUnknown;
}

// Stands at the document, in its object, in the list of entries, in an entry, in its xattrs, or in something unknown
// below one of these. Every callback returns false to end the parsing; then `error` says why.
class Reader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(const TocSink& take) : take_(take) {}

  std::optional<Error> error;
  bool entries_seen = false;

  bool null() override { return true; }
  bool boolean(bool) override { return known() ? refuse("a field that is no boolean") : true; }
  bool number_integer(number_integer_t) override { return known() ? refuse("a negative number") : true; }
  bool number_float(number_float_t, const string_t&) override {
    return known() ? refuse("a number that is not whole") : true;
  }
  bool binary(binary_t&) override { return refuse("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (unknown_ > 0) return true;
    if (at_ == At::kObject && version_next_) {
      version_next_ = false;
      if (value == 1) return true;
      error = Error{.code = Code::kUnsupported, .what = "table of contents of version " + std::to_string(value)};
      return false;
    }
    if (at_ == At::kXattrs) return refuse("an extended attribute that is a number");
    if (at_ != At::kEntry) return true;
    switch (field_) {
      case Field::kSize: entry_.size = value; return true;
      case Field::kMode: entry_.mode = value; return true;
      case Field::kUid: entry_.uid = value; return true;
      case Field::kGid: entry_.gid = value; return true;
      case Field::kDevMajor: entry_.dev_major = value; return true;
      case Field::kDevMinor: entry_.dev_minor = value; return true;
      case Field::kOffset: entry_.offset = value; return true;
      case Field::kInnerOffset: entry_.inner_offset = value; return true;
      case Field::kChunkOffset: entry_.chunk_offset = value; return true;
      case Field::kChunkSize: entry_.chunk_size = value; return true;
      case Field::kUnknown: return true;
      default: return refuse("a number where text belongs");
    }
  }

  bool string(string_t& value) override {
    if (unknown_ > 0) return true;
    if (at_ == At::kXattrs) {
      auto decoded = base64_decode(value);
      if (!decoded) return refuse("an extended attribute that is no base64");
      if (xattr_.empty() || entry_.xattrs.size() >= kMaxXattrs)
        return refuse("an extended attribute without a name, or too many");
      entry_.xattrs.emplace_back(xattr_, *std::move(decoded));
      return true;
    }
    if (at_ != At::kEntry) return true;
    switch (field_) {
      case Field::kName: entry_.name = std::move(value); return true;
      case Field::kType: entry_.type = std::move(value); return true;
      case Field::kLinkName: entry_.link_name = std::move(value); return true;
      case Field::kDigest: entry_.digest = toc_digest(value); return true;
      case Field::kChunkDigest: entry_.chunk_digest = toc_digest(value); return true;
      case Field::kChunkType: entry_.zeros = value == "zeros"; return true;
      case Field::kModtime: {
        const auto time = parse_rfc3339(value);
        if (!time) return refuse("a time that is none");
        std::tie(entry_.mtime, entry_.mtime_nsec) = *time;
        return true;
      }
      case Field::kUnknown: return true;
      default: return refuse("text where a number belongs");
    }
  }

  bool key(string_t& value) override {
    if (unknown_ > 0) return true;
    if (at_ == At::kObject) version_next_ = value == "version", entries_next_ = value == "entries";
    if (at_ == At::kEntry) field_ = field_of(value);
    if (at_ == At::kXattrs) xattr_ = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (unknown_ > 0) return deeper();
    switch (at_) {
      case At::kDocument: at_ = At::kObject; return true;
      case At::kEntries:
        at_ = At::kEntry;
        field_ = Field::kUnknown;
        entry_ = {};
        return true;
      case At::kEntry:
        if (field_ == Field::kXattrs) {
          at_ = At::kXattrs;
          return true;
        }
        return known() ? refuse("an object where none belongs") : deeper();
      case At::kObject: return deeper();
      case At::kXattrs: return refuse("an extended attribute that is an object");
    }
    return false;
  }
  bool end_object() override {
    if (unknown_ > 0) return --unknown_, true;
    if (at_ == At::kXattrs) return at_ = At::kEntry, true;
    if (at_ == At::kObject) return at_ = At::kDocument, true;
    at_ = At::kEntries;
    auto taken = take_(std::move(entry_));
    if (!taken) error = std::move(taken).error();
    return taken.has_value();
  }

  bool start_array(size_t) override {
    if (unknown_ > 0) return deeper();
    if (at_ == At::kObject && entries_next_) {
      if (std::exchange(entries_seen, true)) return refuse("two lists of entries");
      at_ = At::kEntries;
      return true;
    }
    if (at_ == At::kDocument || at_ == At::kEntries || at_ == At::kXattrs || known()) return refuse("a list of lists");
    return deeper();
  }
  bool end_array() override {
    if (unknown_ > 0) return --unknown_, true;
    at_ = At::kObject;
    entries_next_ = false;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return refuse("no JSON at byte " + std::to_string(position));
  }

 private:
  enum class At { kDocument, kObject, kEntries, kEntry, kXattrs };

  // Whether the value belongs to a field that means something.
  bool known() const {
    return unknown_ == 0 && (at_ == At::kXattrs || (at_ == At::kEntry && field_ != Field::kUnknown));
  }
  bool deeper() { return ++unknown_ < kMaxDepth || refuse("too deep"); }
  bool refuse(std::string what) {
    if (!error) error = corrupt(std::move(what)).value();
    return false;
  }

  const TocSink& take_;
  At at_ = At::kDocument;
  size_t unknown_ = 0;  // containers open that mean nothing
  bool version_next_ = false, entries_next_ = false;
  Field field_ = Field::kUnknown;
  std::string xattr_;
  TocEntry entry_;
};

}  // namespace

Result<> read_toc_json(std::string_view json, const TocSink& take) {
  Reader reader(take);
  const bool whole = nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  if (reader.error) return fail(*std::move(reader.error));
  if (!whole || !reader.entries_seen) return corrupt("no list of entries");
  return {};
}

std::optional<std::pair<int64_t, uint32_t>> parse_rfc3339(std::string_view text) {
  const auto number = [&](size_t digits, std::string_view behind) -> std::optional<unsigned> {
    if (text.size() < digits + behind.size() || text.substr(digits, behind.size()) != behind) return std::nullopt;
    unsigned value = 0;
    for (char c : text.substr(0, digits)) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + unsigned(c - '0');
    }
    text.remove_prefix(digits + behind.size());
    return value;
  };
  const auto year = number(4, "-"), month = number(2, "-"), day = number(2, "T"), hour = number(2, ":"),
             minute = number(2, ":"), second = number(2, "");
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  if (*hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  uint32_t nanoseconds = 0;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    uint32_t unit = 100'000'000;
    size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits, unit /= 10)
      nanoseconds += uint32_t(text[digits] - '0') * unit;
    if (digits == 0) return std::nullopt;
    text.remove_prefix(digits);
  }
  int64_t zone = 0;  // seconds east
  if (text != "Z") {
    if (text.size() != 6 || (text[0] != '+' && text[0] != '-')) return std::nullopt;
    const int sign = text[0] == '+' ? 1 : -1;
    text.remove_prefix(1);
    const auto hours = number(2, ":"), minutes = number(2, "");
    if (!hours || !minutes || *hours > 23 || *minutes > 59) return std::nullopt;
    zone = sign * int64_t(*hours * 3600 + *minutes * 60);
  }
  const std::chrono::year_month_day date{std::chrono::year(int(*year)), std::chrono::month(*month),
                                         std::chrono::day(*day)};
  if (!date.ok()) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return std::pair(days * 86400 + int64_t(*hour * 3600 + *minute * 60 + *second) - zone, nanoseconds);
}

}  // namespace hydrant::image
