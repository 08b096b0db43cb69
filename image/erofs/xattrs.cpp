#include "image/erofs/xattrs.h"

#include <optional>

#include "base/byte_range.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {
namespace {

using namespace proto::erofs;

constexpr uint64_t kSharedUses = 3;
constexpr size_t kMaxShared = 255;
constexpr uint64_t kMaxBody = sizeof(XattrHeader) + 4 * (UINT16_MAX - 1);

struct StoredName {
  XattrPrefix prefix;
  std::string_view rest;
};

std::optional<StoredName> stored_name(std::string_view name) {
  if (name == "system.posix_acl_access") return StoredName{XattrPrefix::kAclAccess, {}};
  if (name == "system.posix_acl_default") return StoredName{XattrPrefix::kAclDefault, {}};
  constexpr std::pair<std::string_view, XattrPrefix> kPrefixes[] = {
      {"user.", XattrPrefix::kUser}, {"trusted.", XattrPrefix::kTrusted}, {"security.", XattrPrefix::kSecurity}};
  for (auto [prefix, number] : kPrefixes) {
    if (name.starts_with(prefix) && name.size() > prefix.size()) return StoredName{number, name.substr(prefix.size())};
  }
  return std::nullopt;
}

uint64_t entry_size(const Xattr& xattr) {
  return round_up(sizeof(XattrEntry) + stored_name(xattr.name)->rest.size() + xattr.value.size(), 4);
}

// `out` is zeros of at least entry_size(); yields what follows.
MutableBytes write_entry(std::string_view name, std::string_view value, MutableBytes out) {
  StoredName stored = *stored_name(name);
  XattrEntry entry{.name_size = static_cast<uint8_t>(stored.rest.size()),
                   .prefix = static_cast<uint8_t>(stored.prefix),
                   .value_size = static_cast<uint16_t>(value.size())};
  std::memcpy(out.data(), &entry, sizeof entry);
  if (!stored.rest.empty()) std::memcpy(out.data() + sizeof entry, stored.rest.data(), stored.rest.size());
  if (!value.empty()) std::memcpy(out.data() + sizeof entry + stored.rest.size(), value.data(), value.size());
  return out.subspan(round_up(sizeof entry + stored.rest.size() + value.size(), 4));
}

}  // namespace

Result<> XattrPool::count(const FileEntry& file) {
  for (const Xattr& xattr : file.xattrs) {
    auto name = stored_name(xattr.name);
    if (!name) {
      ++dropped_;
      continue;
    }
    if (name->rest.size() > UINT8_MAX || xattr.value.size() > UINT16_MAX) {
      return fail(Code::kUnsupported, "an extended attribute's name or value is too long");
    }
    ++uses_[{xattr.name, xattr.value}].count;
  }
  return {};
}

void XattrPool::share() {
  for (auto& [key, use] : uses_) {
    if (use.count < kSharedUses) continue;
    use.shared = true;
    use.id = static_cast<uint32_t>(shared_.size() / 4);
    size_t at = shared_.size();
    shared_.resize(at + sizeof(XattrEntry) + round_up(key.first.size() + key.second.size() + 4, 4));
    MutableBytes rest = write_entry(key.first, key.second, MutableBytes(shared_).subspan(at));
    shared_.resize(shared_.size() - rest.size());
  }
}

const XattrPool::Use* XattrPool::find(const Xattr& xattr) const {
  auto found = uses_.find({xattr.name, xattr.value});
  return found == uses_.end() ? nullptr : &found->second;
}

Result<uint64_t> XattrPool::body_size(const FileEntry& file) const {
  uint64_t size = 0;
  size_t shared = 0;
  for (const Xattr& xattr : file.xattrs) {
    const Use* use = find(xattr);
    if (!use) continue;
    bool by_id = use->shared && shared < kMaxShared;
    shared += by_id;
    size += by_id ? sizeof(uint32_t) : entry_size(xattr);
  }
  if (size == 0) return 0;
  size += sizeof(XattrHeader);
  if (size > kMaxBody) return fail(Code::kUnsupported, "its extended attributes are larger than 256 KiB");
  return size;
}

void XattrPool::write_body(const FileEntry& file, MutableBytes out) const {
  XattrHeader header;
  MutableBytes rest = out.subspan(sizeof header);
  for (const Xattr& xattr : file.xattrs) {
    const Use* use = find(xattr);
    if (!use || !use->shared || header.shared_count == kMaxShared) continue;
    ++header.shared_count;
    store_le(rest.data(), use->id);
    rest = rest.subspan(sizeof use->id);
  }
  std::memcpy(out.data(), &header, sizeof header);
  size_t shared = 0;
  for (const Xattr& xattr : file.xattrs) {
    const Use* use = find(xattr);
    if (!use || (use->shared && shared++ < kMaxShared)) continue;
    rest = write_entry(xattr.name, xattr.value, rest);
  }
}

}  // namespace hydrant::image
