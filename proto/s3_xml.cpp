#include "proto/s3_xml.h"

#include <algorithm>
#include <charconv>

namespace hydrant::proto {

namespace {

constexpr size_t kMaxObjects = 1000;  // of a page, by the protocol

void append_utf8(std::string& out, uint32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
  } else if (point < 0x10000) {
    out += {static_cast<char>(0xe0 | point >> 12), static_cast<char>(0x80 | (point >> 6 & 63)),
            static_cast<char>(0x80 | (point & 63))};
  } else {
    out += {static_cast<char>(0xf0 | point >> 18), static_cast<char>(0x80 | (point >> 12 & 63)),
            static_cast<char>(0x80 | (point >> 6 & 63)), static_cast<char>(0x80 | (point & 63))};
  }
}

// "&amp;" and its like, "&#13;", "&#xD;". Nothing when one is malformed.
std::optional<std::string> decode_entities(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    auto plain = text.substr(0, text.find('&'));
    out += plain;
    text.remove_prefix(plain.size());
    if (text.empty()) break;
    auto end = text.find(';');
    if (end == text.npos) return std::nullopt;
    auto name = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    if (name == "amp") {
      out += '&';
    } else if (name == "lt") {
      out += '<';
    } else if (name == "gt") {
      out += '>';
    } else if (name == "quot") {
      out += '"';
    } else if (name == "apos") {
      out += '\'';
    } else if (name.starts_with('#')) {
      name.remove_prefix(1);
      const bool hex = name.starts_with('x');
      if (hex) name.remove_prefix(1);
      uint32_t point = 0;
      auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), point, hex ? 16 : 10);
      if (error != std::errc() || stop != name.data() + name.size() || point == 0 || point > 0x10ffff)
        return std::nullopt;
      append_utf8(out, point);
    } else {
      return std::nullopt;
    }
  }
  return out;
}

// What stands inside the first element `tag`, which is removed from `xml` with all before it.
std::optional<std::string_view> take_element(std::string_view& xml, std::string_view tag) {
  const auto open = "<" + std::string(tag), close = "</" + std::string(tag) + ">";
  for (size_t at = 0; (at = xml.find(open, at)) != xml.npos; at += open.size()) {
    auto after = xml.substr(at + open.size());
    if (after.empty() || (after[0] != '>' && after[0] != ' ' && after[0] != '/')) continue;
    auto opened = after.find('>');
    if (opened == after.npos) return std::nullopt;
    if (opened > 0 && after[opened - 1] == '/') {
      xml = after.substr(opened + 1);
      return std::string_view();
    }
    auto end = after.find(close, opened);
    if (end == after.npos) return std::nullopt;
    xml = after.substr(end + close.size());
    return after.substr(opened + 1, end - opened - 1);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> xml_text(std::string_view xml, std::string_view tag) {
  auto inside = take_element(xml, tag);
  if (!inside || inside->find('<') != inside->npos) return std::nullopt;
  return decode_entities(*inside);
}

S3Error decode_s3_error(std::string_view xml) {
  S3Error out;
  auto error = take_element(xml, "Error");
  if (!error) return out;
  out.code = xml_text(*error, "Code").value_or("");
  out.message = xml_text(*error, "Message").value_or("").substr(0, 200);
  out.region = xml_text(*error, "Region").value_or("");
  for (auto* text : {&out.code, &out.message, &out.region})
    std::replace_if(
        text->begin(), text->end(), [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, ' ');
  return out;
}

Result<S3Listing> decode_s3_listing(std::string_view xml) {
  auto page = take_element(xml, "ListBucketResult");
  if (!page) return fail(Code::kCorrupt, "the answer is no listing of a bucket");
  S3Listing out;
  auto rest = *page;
  while (auto entry = take_element(rest, "Contents")) {
    auto key = xml_text(*entry, "Key"), size = xml_text(*entry, "Size");
    S3Object object;
    if (!key || key->empty() || !size || size->empty())
      return fail(Code::kCorrupt, "a listing's entry has no key or no size");
    auto [end, error] = std::from_chars(size->data(), size->data() + size->size(), object.size);
    if (error != std::errc() || end != size->data() + size->size())
      return fail(Code::kCorrupt, "a listing's entry has a malformed size");
    object.key = std::move(*key);
    object.etag = xml_text(*entry, "ETag").value_or("");
    if (out.objects.size() == kMaxObjects) return fail(Code::kCorrupt, "a listing's page has too many entries");
    out.objects.push_back(std::move(object));
  }
  auto truncated = xml_text(*page, "IsTruncated");
  if (!truncated) return fail(Code::kCorrupt, "a listing does not tell whether it is complete");
  if (*truncated == "true") {
    out.continuation = xml_text(*page, "NextContinuationToken").value_or("");
    if (out.continuation.empty()) return fail(Code::kCorrupt, "a listing breaks off");
  }
  return out;
}

}  // namespace hydrant::proto
