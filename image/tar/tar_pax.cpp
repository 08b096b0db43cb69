#include "image/tar/tar_pax.h"

#include <algorithm>
#include <limits>

#include "image/tar/tar_path.h"

namespace hydrant::image {
namespace {

constexpr std::string_view kSchilyXattr = "SCHILY.xattr.";
constexpr std::string_view kLibarchiveXattr = "LIBARCHIVE.xattr.";
constexpr std::string_view kSparse = "GNU.sparse.";

tl::unexpected<Error> bad_value(std::string_view key) {
  return fail(Code::kCorrupt, "pax record " + printable(key) + " has a malformed value");
}

// Seconds with an optional fraction, rounded towards minus infinity.
bool parse_time(std::string_view text, int64_t& seconds, uint32_t& nanoseconds) {
  bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  size_t dot = std::min(text.find('.'), text.size());
  auto whole = parse_decimal(text.substr(0, dot));
  if (!whole) return false;
  std::string_view fraction = text.substr(std::min(dot + 1, text.size()));
  uint32_t nsec = 0;
  uint32_t unit = 100'000'000;
  bool rest = false;  // digits below a nanosecond that are not zero
  for (char c : fraction) {
    if (c < '0' || c > '9') return false;
    nsec += unit * (c - '0');
    if (unit == 0 && c != '0') rest = true;
    unit /= 10;
  }
  seconds = static_cast<int64_t>(*whole);
  nanoseconds = nsec;
  if (!negative) return true;
  if (rest) ++nsec;  // at most 10^9
  seconds = -seconds - (nsec != 0);
  nanoseconds = nsec == 0 ? 0 : 1'000'000'000 - nsec;
  return true;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> url_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    int high = hex_digit(text[i + 1]);
    int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return out;
}

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

// "offset,length,offset,length…"
bool parse_map(std::string_view text, std::vector<SparseRun>& runs) {
  runs.clear();
  bool is_length = false;
  while (!text.empty()) {
    size_t comma = std::min(text.find(','), text.size());
    auto number = parse_decimal(text.substr(0, comma));
    if (!number) return false;
    if (is_length) {
      runs.back().length = *number;
    } else {
      runs.push_back({*number, 0});
    }
    is_length = !is_length;
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return !is_length;
}

Result<> set_sparse(std::string_view key, std::string_view value, PaxValues::Sparse& sparse) {
  sparse.present = true;
  std::string_view field = key.substr(kSparse.size());
  if (field == "name") {
    sparse.name = value;
    return {};
  }
  if (field == "map") {
    if (!parse_map(value, sparse.runs)) return bad_value(key);
    return {};
  }
  auto number = parse_decimal(value);
  if (!number) return bad_value(key);
  if (field == "major") sparse.major = number;
  if (field == "minor") sparse.minor = number;
  if (field == "size" || field == "realsize") sparse.real_size = number;
  if (field == "offset") {
    if (sparse.open_offset) return bad_value(key);
    sparse.open_offset = number;
  }
  if (field == "numbytes") {
    if (!sparse.open_offset) return bad_value(key);
    sparse.runs.push_back({*sparse.open_offset, *number});
    sparse.open_offset.reset();
  }
  return {};
}

Result<> set_xattr(std::string name, std::string value, PaxValues& values) {
  if (name.empty() || name.find('\0') != name.npos) {
    return fail(Code::kCorrupt, "the name of extended attribute " + printable(name) + " is malformed");
  }
  values.xattrs[std::move(name)] = std::move(value);
  return {};
}

template <class T>
Result<> set_number(std::string_view key, std::string_view value, std::optional<T>& out) {
  out.reset();
  if (value.empty()) return {};
  auto number = parse_decimal(value);
  if (!number) return bad_value(key);
  out = static_cast<T>(*number);
  return {};
}

void set_text(std::string_view value, std::optional<std::string>& out) {
  out.reset();
  if (!value.empty()) out = value;
}

Result<> set(std::string_view key, std::string_view value, PaxScope scope, PaxValues& values) {
  bool of_one_file = key == "path" || key == "linkpath" || key == "size" || key.starts_with(kSparse);
  if (of_one_file && scope == PaxScope::kGlobal) {
    return fail(Code::kUnsupported, "a pax global header sets " + printable(key) + " for all files");
  }
  if (key == "path") return set_text(value, values.path), Result<>();
  if (key == "linkpath") return set_text(value, values.link_path), Result<>();
  if (key == "size") return set_number(key, value, values.size);
  if (key == "uid") return set_number(key, value, values.uid);
  if (key == "gid") return set_number(key, value, values.gid);
  if (key == "mtime") {
    values.mtime.reset();
    int64_t seconds = 0;
    if (value.empty()) return {};
    if (!parse_time(value, seconds, values.mtime_nsec)) return bad_value(key);
    values.mtime = seconds;
    return {};
  }
  if (key.starts_with(kSparse)) return set_sparse(key, value, values.sparse);
  if (key.starts_with(kSchilyXattr)) {
    return set_xattr(std::string(key.substr(kSchilyXattr.size())), std::string(value), values);
  }
  if (key.starts_with(kLibarchiveXattr)) {
    auto name = url_decode(key.substr(kLibarchiveXattr.size()));
    auto decoded = base64_decode(value);
    if (!name || !decoded) return bad_value(key);
    return set_xattr(*std::move(name), *std::move(decoded), values);
  }
  return {};
}

}  // namespace

std::optional<std::string> base64_decode(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (char c : text) {
    int digit = base64_digit(c);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | digit;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>(bits >> held);
  }
  return out;
}

std::optional<uint64_t> parse_decimal(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    if (__builtin_mul_overflow(value, 10u, &value)) return std::nullopt;
    if (__builtin_add_overflow(value, uint64_t(c - '0'), &value)) return std::nullopt;
  }
  if (value > uint64_t(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return value;
}

Result<> decode_pax(Bytes bytes, PaxScope scope, PaxValues& values) {
  std::string_view rest = as_text(bytes);
  while (!rest.empty()) {
    // "<length of the whole record> <key>=<value>\n"
    size_t blank = rest.find(' ');
    auto length = blank == rest.npos ? std::nullopt : parse_decimal(rest.substr(0, blank));
    if (!length || *length <= blank + 1 || *length > rest.size() || rest[*length - 1] != '\n') {
      return fail(Code::kCorrupt, "a pax header is malformed");
    }
    std::string_view record = rest.substr(blank + 1, *length - blank - 2);
    rest.remove_prefix(*length);
    size_t equals = record.find('=');
    if (equals == 0 || equals == record.npos) return fail(Code::kCorrupt, "a pax record has no key");
    HYDRANT_TRY_VOID(set(record.substr(0, equals), record.substr(equals + 1), scope, values));
  }
  if (values.sparse.open_offset) return fail(Code::kCorrupt, "a pax sparse map ends within a run");
  return {};
}

}  // namespace hydrant::image
