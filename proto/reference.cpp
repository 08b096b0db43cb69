#include "proto/reference.h"

#include <cctype>

namespace hydrant::proto {

namespace {

constexpr size_t kMaxReference = 4096;
constexpr size_t kMaxName = 255;  // registry and repository together, as the distribution project has it

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return std::isalnum(static_cast<unsigned char>(c)); }

// Lower-case words joined by one '.', one or two '_', or any number of '-'.
bool is_path_component(std::string_view text) {
  if (text.empty() || !is_lower_alnum(text.front()) || !is_lower_alnum(text.back())) return false;
  for (size_t i = 0; i < text.size();) {
    if (is_lower_alnum(text[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && text[end] == text[i]) ++end;
    size_t run = end - i;
    bool good = (text[i] == '.' && run == 1) || (text[i] == '_' && run <= 2) || text[i] == '-';
    if (!good || end == text.size() || !is_lower_alnum(text[end])) return false;
    i = end;
  }
  return true;
}

bool is_tag(std::string_view text) {
  if (text.empty() || text.size() > 128 || text.front() == '.' || text.front() == '-') return false;
  for (char c : text)
    if (!is_alnum(c) && c != '_' && c != '.' && c != '-') return false;
  return true;
}

bool is_port(std::string_view text) {
  if (text.empty() || text.size() > 5) return false;
  unsigned value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value > 0 && value < 65536;
}

// A DNS name, an IPv4 address or a bracketed IPv6 address, with an optional port.
bool is_registry(std::string_view text) {
  std::string_view host = text;
  if (text.starts_with('[')) {
    auto close = text.find(']');
    if (close == text.npos || close < 3) return false;
    for (char c : text.substr(1, close - 1))
      if (!std::isxdigit(static_cast<unsigned char>(c)) && c != ':' && c != '.') return false;
    auto rest = text.substr(close + 1);
    return rest.empty() || (rest.front() == ':' && is_port(rest.substr(1)));
  }
  if (auto colon = text.find(':'); colon != text.npos) {
    if (!is_port(text.substr(colon + 1))) return false;
    host = text.substr(0, colon);
  }
  if (host.empty() || host.front() == '-' || host.front() == '.' || host.back() == '-' || host.back() == '.')
    return false;
  for (size_t i = 0; i < host.size(); ++i)
    if (!is_alnum(host[i]) && host[i] != '-' && (host[i] != '.' || host[i - 1] == '.')) return false;
  return true;
}

// What stands before the first '/' is a registry when it cannot be a repository's first word.
bool looks_like_registry(std::string_view first) {
  if (first == "localhost" || first.find_first_of(".:[") != first.npos) return true;
  for (char c : first)
    if (c >= 'A' && c <= 'Z') return true;
  return false;
}

std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (char c : text) out += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  return out + "'";
}

tl::unexpected<Error> invalid(std::string_view whole, const std::string& why) {
  return fail(Code::kInvalid, "source " + in_quotes(whole) + ": " + why);
}

// `url` cut at query and fragment.
std::string_view without_query(std::string_view url) { return url.substr(0, url.find_first_of("?#")); }

// "user:password@host" → "host"; only the authority may hold an '@' that counts.
std::string drop_userinfo(std::string_view url) {
  auto start = url.find("://");
  if (start == url.npos) return std::string(url);
  start += 3;
  auto end = std::min(url.find('/', start), url.size());
  auto at = url.substr(start, end - start).rfind('@');
  if (at == std::string_view::npos) return std::string(url);
  return std::string(url.substr(0, start)) + std::string(url.substr(start + at + 1));
}

bool has_control_or_blank(std::string_view text) {
  for (char c : text)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return true;
  return false;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_encode(std::string_view path) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (char c : path) {
    auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '%' || c == '?' || c == '#') {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

// A path or a tag from a command line: bytes as they are, but NUL cannot be part of a path.
bool has_nul(std::string_view text) { return text.find('\0') != text.npos; }

Result<SourceReference> parse_oci_dir(std::string_view whole, std::string_view rest) {
  // As in the containers tools the first colon ends the directory, so a tag may hold colons and a directory may not.
  auto colon = rest.find(':');
  SourceReference out{.kind = SourceKind::kOciDir};
  out.path = rest.substr(0, colon);
  if (colon != rest.npos) {
    out.tag = rest.substr(colon + 1);
    if (out.tag.empty()) return invalid(whole, "nothing after the colon; write oci:DIR or oci:DIR:TAG");
  }
  if (out.path.empty()) return invalid(whole, "the directory is missing; write oci:DIR or oci:DIR:TAG");
  if (has_nul(rest)) return invalid(whole, "holds a zero byte");
  return out;
}

Result<SourceReference> parse_url(std::string_view whole, SourceKind kind) {
  SourceReference out{.kind = kind};
  out.url = whole;
  if (has_control_or_blank(whole)) return invalid(drop_userinfo(without_query(whole)), "a URL holds no blanks");
  auto authority = drop_userinfo(without_query(whole));
  authority = authority.substr(authority.find("://") + 3);
  authority = authority.substr(0, authority.find('/'));
  if (authority.empty()) return invalid(drop_userinfo(without_query(whole)), "the host is missing");
  return out;
}

Result<SourceReference> parse_file_url(std::string_view whole) {
  auto rest = whole.substr(std::string_view("file://").size());
  if (rest.starts_with("localhost/")) rest.remove_prefix(std::string_view("localhost").size());
  if (!rest.starts_with('/')) return invalid(whole, "names a file by its full path: file:///srv/image.erofs");
  auto path = percent_decode(rest);
  if (!path || has_nul(*path)) return invalid(whole, "has a broken %-escape");
  SourceReference out{.kind = SourceKind::kFile};
  out.path = std::move(*path);
  return out;
}

}  // namespace

std::string ImageName::text() const {
  std::string out = registry + "/" + repository;
  if (!tag.empty()) out += ":" + tag;
  if (digest) out += "@" + digest->text();
  return out;
}

Result<ImageName> ImageName::parse(std::string_view whole) {
  if (whole.size() > kMaxReference) return fail(Code::kInvalid, "image reference is longer than 4096 characters");
  ImageName out;
  std::string_view name = whole;
  if (auto at = name.find('@'); at != name.npos) {
    auto digest = Digest::parse(name.substr(at + 1));
    if (!digest || !name.substr(at + 1).starts_with("sha256:"))
      return invalid(whole, "after '@' stands sha256: and 64 lower-case hex characters");
    out.digest = *digest;
    name = name.substr(0, at);
  }
  // A colon behind the last slash is a tag's, one before it a port's.
  auto slash = name.rfind('/');
  auto colon = name.find(':', slash == name.npos ? 0 : slash);
  if (colon != name.npos) {
    out.tag = name.substr(colon + 1);
    if (!is_tag(out.tag)) return invalid(whole, "tag " + in_quotes(out.tag) + " is malformed");
    name = name.substr(0, colon);
  }
  auto first = name.substr(0, name.find('/'));
  if (first.size() < name.size() && looks_like_registry(first)) {
    out.registry = first;
    out.repository = name.substr(first.size() + 1);
    if (!is_registry(out.registry)) return invalid(whole, "registry " + in_quotes(out.registry) + " is malformed");
    if (out.registry == "index.docker.io" || out.registry == "registry-1.docker.io") out.registry = "docker.io";
  } else {
    out.registry = "docker.io";
    out.repository = name;
  }
  if (out.registry == "docker.io" && !out.repository.empty() && out.repository.find('/') == std::string::npos)
    out.repository.insert(0, "library/");
  if (out.repository.empty()) return invalid(whole, "the image's name is missing");
  if (out.registry.size() + out.repository.size() >= kMaxName)
    return invalid(whole, "name is longer than 255 characters");
  for (std::string_view rest = out.repository;;) {
    auto component = rest.substr(0, rest.find('/'));
    if (!is_path_component(component))
      return invalid(whole, "name part " + in_quotes(component) +
                                " is malformed; lower-case letters and digits, joined by '.', '_' or '-'");
    if (component.size() == rest.size()) break;
    rest.remove_prefix(component.size() + 1);
  }
  if (out.tag.empty() && !out.digest) out.tag = "latest";
  return out;
}

std::string SourceReference::text() const {
  switch (kind) {
    case SourceKind::kRegistry: return image.text();
    case SourceKind::kOciDir: return "oci:" + path + (tag.empty() ? "" : ":" + tag);
    case SourceKind::kFile: return "file://" + percent_encode(path);
    case SourceKind::kHttp:
    case SourceKind::kS3: return url;
  }
  return url;
}

std::string SourceReference::display() const {
  return kind == SourceKind::kHttp || kind == SourceKind::kS3 ? url_without_secrets(url) : text();
}

Result<SourceReference> SourceReference::parse(std::string_view text) {
  if (text.empty()) return fail(Code::kInvalid, "source is empty; name an image, oci:DIR, a URL or file:///path");
  if (text.size() > kMaxReference) return fail(Code::kInvalid, "source is longer than 4096 characters");
  if (text.starts_with("oci:")) return parse_oci_dir(text, text.substr(4));
  auto scheme = text.substr(0, text.find("://"));
  if (scheme.size() < text.size()) {
    if (scheme == "http" || scheme == "https") return parse_url(text, SourceKind::kHttp);
    if (scheme == "s3") return parse_url(text, SourceKind::kS3);
    if (scheme == "file") return parse_file_url(text);
    // What skopeo and podman write before a registry's image.
    if (scheme != "docker")
      return fail(Code::kUnsupported, "source " + in_quotes(url_without_secrets(text)) + ": scheme " +
                                          in_quotes(scheme) +
                                          " is unknown; there are http, https, s3, file, oci:DIR and image references");
    text.remove_prefix(std::string_view("docker://").size());
  }
  SourceReference out{.kind = SourceKind::kRegistry};
  HYDRANT_TRY(out.image, ImageName::parse(text));
  return out;
}

std::string absolute_source(const std::string& source, const std::string& working_dir) {
  auto absolute = [&](std::string path) { return path.starts_with('/') ? path : working_dir + "/" + path; };
  if (source.starts_with("oci:") && source.size() > 4) return "oci:" + absolute(source.substr(4));
  if (source.starts_with("file:") && source.size() > 5 && !source.starts_with("file://"))
    return SourceReference{.kind = SourceKind::kFile, .path = absolute(source.substr(5))}.text();
  return source;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
    if (high < 0 || low < 0 || (high | low) == 0) return std::nullopt;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return out;
}

std::string url_without_secrets(std::string_view url) { return drop_userinfo(without_query(url)); }

bool is_loopback_host(std::string_view host) {
  if (host.starts_with('[')) return host == "[::1]" || host.starts_with("[::1]:");
  host = host.substr(0, host.find(':'));
  if (host == "localhost") return true;
  if (!host.starts_with("127.")) return false;
  // "127.evil.example" is a name, not an address.
  return host.find_first_not_of("0123456789.") == host.npos;
}

}  // namespace hydrant::proto
