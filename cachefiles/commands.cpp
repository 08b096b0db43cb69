#include "cachefiles/commands.h"

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {
namespace {

constexpr size_t kCommandLimit = 4095;

bool is_space(char c) {
  auto byte = static_cast<unsigned char>(c);
  return (byte >= 0x09 && byte <= 0x0d) || byte == 0x20 || byte == 0xa0;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// Takes a "0x" that is followed by a hex digit, and says the base.
int take_base(std::string_view& text) {
  if (text.empty() || text[0] != '0') return 10;
  if (text.size() > 2 && (text[1] == 'x' || text[1] == 'X') && digit_of(text[2]) < 16) {
    text.remove_prefix(2);
    return 16;
  }
  return 8;
}

// Takes the digits; the value saturates at overflow, which `overflow` tells.
size_t take_digits(std::string_view& text, int base, uint64_t* value, bool* overflow) {
  size_t taken = 0;
  for (*value = 0, *overflow = false; taken < text.size() && digit_of(text[taken]) < base; ++taken)
    if (__builtin_mul_overflow(*value, uint64_t(base), value) ||
        __builtin_add_overflow(*value, uint64_t(digit_of(text[taken])), value))
      *overflow = true;
  text.remove_prefix(taken);
  return taken;
}

int parse_plain(std::string_view text, uint64_t* out) {
  int base = take_base(text);
  bool overflow;
  size_t digits = take_digits(text, base, out, &overflow);
  if (overflow) return -ERANGE;
  return digits == 0 || !text.empty() ? -EINVAL : 0;
}

}  // namespace

int split_command(Bytes bytes, Command* out) {
  if (bytes.size() > kCommandLimit) return -EOPNOTSUPP;
  std::string_view text = as_text(bytes);
  if (text.find('\0') != text.npos) return -EINVAL;
  size_t newline = text.find('\n');
  if (newline == 0) return -EINVAL;
  text = text.substr(0, newline);
  if (!text.empty() && is_space(text[0])) return -EOPNOTSUPP;
  size_t end = 0;
  while (end < text.size() && !is_space(text[end])) ++end;
  out->word = text.substr(0, end);
  while (end < text.size() && is_space(text[end])) ++end;
  out->arguments = text.substr(end);
  return 0;
}

int parse_unsigned(std::string_view text, uint64_t* out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  return parse_plain(text, out);
}

int parse_signed(std::string_view text, int64_t* out) {
  bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  uint64_t value = 0;
  if (int err = negative ? parse_plain(text, &value) : parse_unsigned(text, &value)) return err;
  if (value > (negative ? uint64_t{1} << 63 : uint64_t{INT64_MAX})) return -ERANGE;
  *out = static_cast<int64_t>(negative ? 0 - value : value);
  return 0;
}

int parse_percentage(std::string_view text, uint64_t* out) {
  if (text.empty()) return -EINVAL;
  bool overflow;
  take_digits(text, 10, out, &overflow);
  return overflow || *out >= 100 || text != "%" ? -EINVAL : 0;
}

int parse_mask(std::string_view text, unsigned* out) {
  uint64_t value = 0;
  bool overflow;
  int base = take_base(text);
  take_digits(text, base, &value, &overflow);
  if (!text.empty()) return -EINVAL;
  *out = static_cast<unsigned>(value);
  return 0;
}

int64_t Cache::command(Bytes text, const Caller& caller) {
  if (has(kDead)) return -EIO;
  Command command;
  if (int err = split_command(text, &command)) return err;
  static constexpr std::string_view kWords[] = {"bind",  "brun",  "bcull", "bstop",  "cull", "debug", "dir",    "frun",
                                                "fcull", "fstop", "inuse", "secctx", "tag",  "copen", "restore"};
  if (std::find(std::begin(kWords), std::end(kWords), command.word) == std::end(kWords)) return -EOPNOTSUPP;
  std::unique_lock lock(command_mutex_);
  if (has(kDead)) return -EIO;
  // Answers complete requests, and completions are calls out: they run under no lock.
  if (command.word == "copen" || command.word == "restore") lock.unlock();
  trace::Step step("command");
  int result = run(command.word, command.arguments, caller);
  return result < 0 ? result : static_cast<int64_t>(text.size());
}

int Cache::run(std::string_view word, std::string_view arguments, const Caller& caller) {
  if (word == "bind") return bind(arguments, caller);
  if (word == "cull") return cull(arguments, caller);
  if (word == "inuse") return inuse(arguments, caller);
  if (word == "copen") return copen(arguments);
  if (word == "restore") return restore();
  if (word == "dir") return set_text(directory_, arguments);
  if (word == "tag") return set_text(tag_, arguments);
  if (word == "debug") return set_debug(arguments);
  // There is no security module here that could resolve a label.
  if (word == "secctx") return arguments.empty() ? -EINVAL : -EOPNOTSUPP;
  return set_percentage(word, arguments);
}

int Cache::set_percentage(std::string_view word, std::string_view arguments) {
  uint64_t value = 0;
  if (int err = parse_percentage(arguments, &value)) return err;
  Percent& percent = word[0] == 'f' ? file_percent_ : block_percent_;
  std::string_view which = word.substr(1);
  bool fits = which == "run"    ? value > percent.cull && value < 100
              : which == "cull" ? value > percent.stop && value < percent.run
                                : value < percent.cull;
  if (!fits) {
    log::warn("cachefiles.limits_refused", {{"command", word}, {"required", "0 <= stop < cull < run < 100 percent"}});
    return -EINVAL;
  }
  (which == "run" ? percent.run : which == "cull" ? percent.cull : percent.stop) = value;
  return 0;
}

int Cache::set_text(std::string& slot, std::string_view arguments) {
  if (arguments.empty()) return -EINVAL;
  if (!slot.empty()) return -EEXIST;
  slot = arguments;
  return 0;
}

int Cache::set_debug(std::string_view arguments) {
  unsigned value = 0;
  if (int err = parse_mask(arguments, &value)) return err;
  trace::set_debug_mask(value);
  return 0;
}

}  // namespace hydrant::cachefiles
