#include "proto/http_header.h"

#include <cctype>
#include <charconv>

namespace hydrant::proto {

namespace {

constexpr size_t kMaxChallenges = 16;
constexpr size_t kMaxParams = 16;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<uint64_t> take_number(std::string_view& text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_token_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string::npos;
}

// Reads a challenge list from the front. Every step either consumes at least one byte or reports the end.
class ChallengeReader {
 public:
  explicit ChallengeReader(std::string_view text) : rest_(text) {}

  void skip_blanks() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) rest_.remove_prefix(1);
  }
  void skip_separators() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t' || rest_.front() == ','))
      rest_.remove_prefix(1);
  }
  std::string_view token() {
    size_t size = 0;
    while (size < rest_.size() && is_token_char(rest_[size])) ++size;
    auto out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }
  bool at(char c) const { return !rest_.empty() && rest_.front() == c; }
  bool done() const { return rest_.empty(); }
  bool take(char c) {
    if (!at(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // A token or a quoted string. Nothing when it is neither, or the closing quote is missing.
  std::optional<std::string> value() {
    if (!take('"')) {
      auto text = token();
      if (text.empty()) return std::nullopt;
      return std::string(text);
    }
    std::string out;
    while (!rest_.empty()) {
      char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') return out;
      if (c == '\\') {
        if (rest_.empty()) break;
        c = rest_.front();
        rest_.remove_prefix(1);
      }
      // The value goes into further requests, where a line break would start a header of its own.
      if (static_cast<unsigned char>(c) < 0x20 && c != '\t') return std::nullopt;
      out += c;
    }
    return std::nullopt;
  }
  std::string_view rest() const { return rest_; }
  void rewind(std::string_view rest) { rest_ = rest; }

 private:
  std::string_view rest_;
};

}  // namespace

std::optional<ContentRange> parse_content_range(std::string_view value) {
  value = trim(value);
  if (value.size() < 6 || lower(value.substr(0, 6)) != "bytes ") return std::nullopt;
  value.remove_prefix(6);
  ContentRange out;
  if (!take(value, "*")) {
    auto first = take_number(value);
    if (!first || !take(value, "-")) return std::nullopt;
    auto last = take_number(value);
    if (!last || *last < *first || *last == UINT64_MAX) return std::nullopt;
    out.range = ByteRange{*first, *last + 1};
  }
  if (!take(value, "/")) return std::nullopt;
  if (!take(value, "*")) {
    out.total = take_number(value);
    if (!out.total) return std::nullopt;
  }
  if (!value.empty()) return std::nullopt;
  if (out.range && out.total && out.range->end > *out.total) return std::nullopt;
  if (!out.range && !out.total) return std::nullopt;
  return out;
}

std::string range_header(const ByteRange& range) {
  return "bytes=" + std::to_string(range.begin) + "-" + std::to_string(range.end - 1);
}

std::string Challenge::param(const std::string& name) const {
  auto found = params.find(name);
  return found == params.end() ? std::string() : found->second;
}

std::vector<Challenge> parse_challenges(std::string_view value) {
  std::vector<Challenge> out;
  ChallengeReader in(value);
  for (;;) {
    in.skip_separators();
    if (in.done() || out.size() == kMaxChallenges) return out;
    auto scheme = in.token();
    if (scheme.empty()) return out;
    Challenge challenge{.scheme = lower(scheme), .params = {}};
    // Parameters follow until a token without '=' turns up: the next scheme.
    for (;;) {
      auto before = in.rest();
      in.skip_separators();
      auto name = in.token();
      in.skip_blanks();
      if (name.empty() || !in.take('=')) {
        in.rewind(before);
        break;
      }
      in.skip_blanks();
      auto text = in.value();
      if (!text || challenge.params.size() == kMaxParams) return out.push_back(std::move(challenge)), out;
      challenge.params.emplace(lower(name), std::move(*text));
    }
    out.push_back(std::move(challenge));
    // What is neither blank nor comma here belongs to no challenge ("token68" credentials, garbage).
    if (in.skip_blanks(); !in.done() && !in.at(',') && in.rest().size() && !is_token_char(in.rest().front()))
      return out;
  }
}

}  // namespace hydrant::proto
