#include "image/tree/merge.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "image/tree/name_table.h"

namespace hydrant::image {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kResolving = kNone - 1;  // a hard link whose chain is being followed
constexpr uint32_t kMaxNodes = kResolving - 1;
constexpr unsigned kMaxLinks = 40;            // symbolic links in one path: what Linux follows
constexpr uint64_t kMaxFollowed = 256 << 20;  // bytes of link targets in one merge

// A name that some layer gave. It keeps its index when it is hidden and given again, so that the name table never
// forgets; a hidden node's descendants are hidden too.
struct Node {
  uint32_t first_child = kNone;
  uint32_t next_sibling = kNone;
  uint32_t inode = kNone;           // kNone with `link` set: a hard link that is not resolved yet
  uint32_t layer = 0;               // that gave the name last
  const FileEntry* link = nullptr;  // the entry of such a link
  bool alive = false;
};

struct Inode {
  const FileEntry* entry;
  uint32_t layer;
  bool is_directory() const { return !entry || entry->type == FileType::kDirectory; }
};

tl::unexpected<Error> refuse(uint32_t layer, std::string_view path, std::string_view why) {
  constexpr size_t kShown = 160;
  return fail(Code::kCorrupt, "layer " + std::to_string(layer) + ": \"" + std::string(path.substr(0, kShown)) +
                                  "\": " + std::string(why));
}

bool is_valid_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 && name.find('\0') == name.npos;
}

// Cuts the first component off.
std::string_view pop_name(std::string_view& path) {
  size_t slash = path.find('/');
  std::string_view name = path.substr(0, slash);
  path.remove_prefix(slash == path.npos ? path.size() : slash + 1);
  return name;
}

class Merger {
 public:
  explicit Merger(size_t entries) : names_(entries) {
    nodes_.reserve(entries + 1);
    inodes_.reserve(entries + 1);
    nodes_.push_back({.inode = 0, .alive = true});
    inodes_.push_back({nullptr, 0});
  }

  Result<> add_layer(uint32_t layer, const FileTable& table);
  Tree finish() &&;

 private:
  // The live node at `path`, or kNone. The last name is not followed.
  Result<uint32_t> find(std::string_view path, const FileEntry& asker);
  // The live directory that `path` leads to through symbolic links, for `asker`'s sake. What is missing is made, or
  // makes it kNone.
  Result<uint32_t> walk(std::string_view path, const FileEntry& asker, bool make);
  // The live directory at the parent of entry.path, made if need be.
  Result<uint32_t> parent_of(const FileEntry& entry);
  Result<uint32_t> make_directory(uint32_t parent, std::string_view name, const FileEntry& below);
  Result<uint32_t> node_for(uint32_t parent, std::string_view name);

  Result<> hide_lower(const FileEntry& entry);
  Result<> place(const FileEntry& entry);
  Result<> place_root(const FileEntry& entry);
  Result<> resolve(uint32_t node);

  const FileEntry* symlink_at(uint32_t node) const {
    if (node == kNone || !nodes_[node].alive || nodes_[node].inode >= kResolving) return nullptr;
    const FileEntry* entry = inodes_[nodes_[node].inode].entry;
    return entry && entry->type == FileType::kSymlink ? entry : nullptr;
  }
  bool is_directory(uint32_t node) const {
    return nodes_[node].inode < kResolving && inodes_[nodes_[node].inode].is_directory();
  }
  void hide_children(uint32_t node);
  uint32_t new_inode(const FileEntry* entry);

  NameTable names_;
  std::vector<Node> nodes_;
  std::vector<Inode> inodes_;
  uint32_t layer_ = 0;
  std::vector<uint32_t> links_;  // of this layer, to resolve
  // Directories of this layer made in the place of a lower layer's file, and the entry they were made for.
  std::vector<std::pair<uint32_t, const FileEntry*>> assumed_;
  std::string_view last_parent_path_;
  uint32_t last_parent_ = kNone;
  uint64_t followed_ = 0;               // bytes of link targets
  std::vector<uint32_t> stack_;         // scratch
  std::vector<uint32_t> trail_;         // scratch of walk: from the root to where it is
  std::vector<std::string_view> rest_;  // scratch of walk: of the path, and of the link targets it is in
};

uint32_t Merger::new_inode(const FileEntry* entry) {
  inodes_.push_back({entry, layer_});
  return static_cast<uint32_t>(inodes_.size() - 1);
}

Result<uint32_t> Merger::find(std::string_view path, const FileEntry& asker) {
  if (path.empty()) return 0;
  const size_t slash = path.rfind('/');
  HYDRANT_TRY(uint32_t parent, walk(path.substr(0, slash == path.npos ? 0 : slash), asker, false));
  if (parent == kNone) return kNone;
  const uint32_t at = names_.find(parent, path.substr(slash == path.npos ? 0 : slash + 1));
  return at != kNone && nodes_[at].alive ? at : kNone;
}

Result<uint32_t> Merger::walk(std::string_view path, const FileEntry& asker, bool make) {
  trail_.assign(1, 0);
  rest_.assign(1, path);
  for (unsigned links = 0; !rest_.empty();) {
    if (rest_.back().empty()) {
      rest_.pop_back();
      continue;
    }
    const std::string_view name = pop_name(rest_.back());
    if (rest_.size() > 1 && (name.empty() || name == "." || name == "..")) {
      if (name == ".." && trail_.size() > 1) trail_.pop_back();
      continue;
    }
    uint32_t at = names_.find(trail_.back(), name);
    if (const FileEntry* link = symlink_at(at)) {
      const std::string_view target = link->link_target;
      if (++links > kMaxLinks) return refuse(layer_, asker.path, "too many symbolic links on the way");
      if ((followed_ += target.size() + 1) > kMaxFollowed)
        return fail(Code::kUnsupported, "the image has too many files below symbolic links");
      if (target.starts_with('/')) trail_.resize(1);
      rest_.push_back(target);
      continue;
    }
    if (make) {
      HYDRANT_TRY(at, make_directory(trail_.back(), name, asker));
    } else if (at == kNone || !nodes_[at].alive || !is_directory(at)) {
      return kNone;
    }
    trail_.push_back(at);
  }
  return trail_.back();
}

// The node for this name, dead or alive.
Result<uint32_t> Merger::node_for(uint32_t parent, std::string_view name) {
  if (nodes_.size() >= kMaxNodes) return fail(Code::kUnsupported, "the image has too many files");
  const uint32_t node = names_.find_or_add(parent, name);
  if (node == nodes_.size()) {
    nodes_.push_back({.next_sibling = nodes_[parent].first_child});
    nodes_[parent].first_child = node;
  }
  return node;
}

void Merger::hide_children(uint32_t node) {
  stack_.assign(1, node);
  while (!stack_.empty()) {
    uint32_t parent = stack_.back();
    stack_.pop_back();
    for (uint32_t child = nodes_[parent].first_child; child != kNone; child = nodes_[child].next_sibling) {
      if (!nodes_[child].alive) continue;
      nodes_[child].alive = false;
      stack_.push_back(child);
    }
  }
}

Result<> Merger::hide_lower(const FileEntry& entry) {
  bool opaque = entry.type == FileType::kOpaque;
  if (entry.path.empty() && !opaque) return refuse(layer_, entry.path, "a whiteout hides the root");
  HYDRANT_TRY(uint32_t node, find(entry.path, entry));
  if (node == kNone) return {};
  hide_children(node);
  if (!opaque) nodes_[node].alive = false;
  return {};
}

Result<uint32_t> Merger::make_directory(uint32_t parent, std::string_view name, const FileEntry& below) {
  if (!is_valid_name(name)) return refuse(layer_, below.path, "the path is not in normal form");
  HYDRANT_TRY(uint32_t at, node_for(parent, name));
  Node& node = nodes_[at];
  if (node.alive && is_directory(at)) return at;
  if (node.alive && node.layer == layer_) return refuse(layer_, below.path, "its parent is not a directory");
  if (node.alive) assumed_.push_back({at, &below});
  node.alive = true;
  node.link = nullptr;
  node.layer = layer_;
  node.inode = new_inode(nullptr);
  return at;
}

Result<uint32_t> Merger::parent_of(const FileEntry& entry) {
  size_t slash = entry.path.rfind('/');
  std::string_view path = std::string_view(entry.path).substr(0, slash == entry.path.npos ? 0 : slash);
  // Archives list the entries of a directory one after the other. A path keeps its node, so only whether it is still a
  // directory needs a look.
  bool same = last_parent_ != kNone && path == last_parent_path_;
  if (same && nodes_[last_parent_].alive && is_directory(last_parent_)) return last_parent_;
  if (slash == 0 || path.ends_with('/')) return refuse(layer_, entry.path, "the path is not in normal form");
  const uint64_t followed = followed_;
  HYDRANT_TRY(uint32_t at, walk(path, entry, true));
  last_parent_path_ = path;
  last_parent_ = followed_ == followed ? at : kNone;  // another entry may turn a link
  return at;
}

Result<> Merger::place_root(const FileEntry& entry) {
  if (entry.type != FileType::kDirectory) return refuse(layer_, entry.path, "the root is not a directory");
  inodes_[0] = {&entry, layer_};
  return {};
}

Result<> Merger::place(const FileEntry& entry) {
  if (entry.path.empty()) return place_root(entry);
  HYDRANT_TRY(uint32_t parent, parent_of(entry));
  std::string_view name = std::string_view(entry.path).substr(entry.path.rfind('/') + 1);
  if (!is_valid_name(name)) return refuse(layer_, entry.path, "the path is not in normal form");
  HYDRANT_TRY(uint32_t at, node_for(parent, name));
  bool was_directory = nodes_[at].alive && is_directory(at);
  if (was_directory && entry.type != FileType::kDirectory) hide_children(at);

  Node& node = nodes_[at];
  node.alive = true;
  node.layer = layer_;
  node.link = nullptr;
  if (was_directory && entry.type == FileType::kDirectory) {
    inodes_[node.inode] = {&entry, layer_};
  } else if (entry.type != FileType::kHardLink) {
    node.inode = new_inode(&entry);
  } else {
    node.inode = kNone;  // what had this name is gone, for a link to itself too
    HYDRANT_TRY(uint32_t target, find(entry.link_target, entry));
    bool own = target != kNone && nodes_[target].layer == layer_ && nodes_[target].inode < kResolving;
    if (own && !is_directory(target)) {
      node.inode = nodes_[target].inode;
    } else {
      node.link = &entry;
      links_.push_back(at);
    }
  }
  return {};
}

// Follows the chain of links from `node` to something that has an inode, and gives it to all of them.
Result<> Merger::resolve(uint32_t node) {
  stack_.clear();
  uint32_t at = node;
  while (nodes_[at].link && nodes_[at].inode == kNone) {
    nodes_[at].inode = kResolving;
    stack_.push_back(at);
    const FileEntry& link = *nodes_[at].link;
    HYDRANT_TRY(uint32_t target, find(link.link_target, link));
    if (target == kNone)
      return refuse(layer_, link.path, "hard link to \"" + link.link_target + "\", which is missing");
    if (is_directory(target)) return refuse(layer_, link.path, "hard link to a directory");
    at = target;
  }
  if (nodes_[at].inode == kResolving) return refuse(layer_, nodes_[at].link->path, "hard links form a circle");
  for (uint32_t waiting : stack_) {
    nodes_[waiting].inode = nodes_[at].inode;
    nodes_[waiting].link = nullptr;
  }
  return {};
}

Result<> Merger::add_layer(uint32_t layer, const FileTable& table) {
  layer_ = layer;
  links_.clear();
  assumed_.clear();
  last_parent_ = kNone;
  auto hides = [](const FileEntry& entry) {
    return entry.type == FileType::kWhiteout || entry.type == FileType::kOpaque;
  };
  for (const FileEntry& entry : table) {
    if (hides(entry)) HYDRANT_TRY_VOID(hide_lower(entry));
  }
  for (const FileEntry& entry : table) {
    if (!hides(entry)) HYDRANT_TRY_VOID(place(entry));
  }
  for (uint32_t node : links_) {
    if (nodes_[node].alive && nodes_[node].link) HYDRANT_TRY_VOID(resolve(node));
  }
  for (auto [node, below] : assumed_) {
    // The layer may have listed the directory, or replaced it, after what stands below it.
    bool implied = nodes_[node].alive && is_directory(node) && !inodes_[nodes_[node].inode].entry;
    if (implied) return refuse(layer_, below->path, "its parent is not a directory in a lower layer");
  }
  return {};
}

Tree Merger::finish() && {
  Tree tree;
  std::vector<uint32_t> place_of(inodes_.size(), kNone);  // in the finished tree
  std::vector<uint32_t> directory_node;                   // node of each finished inode that is a directory
  auto add_inode = [&](uint32_t inode, uint32_t node) {
    place_of[inode] = static_cast<uint32_t>(tree.inodes.size());
    tree.inodes.push_back({.entry = inodes_[inode].entry, .layer = inodes_[inode].layer});
    directory_node.push_back(inodes_[inode].is_directory() ? node : kNone);
  };
  add_inode(0, 0);
  std::vector<uint32_t> children;
  for (uint32_t at = 0; at < tree.inodes.size(); ++at) {
    if (directory_node[at] == kNone) continue;
    children.clear();
    for (uint32_t child = nodes_[directory_node[at]].first_child; child != kNone; child = nodes_[child].next_sibling) {
      if (nodes_[child].alive) children.push_back(child);
    }
    std::sort(children.begin(), children.end(),
              [&](uint32_t a, uint32_t b) { return names_.name(a) < names_.name(b); });
    tree.inodes[at].first_name = static_cast<uint32_t>(tree.names.size());
    tree.inodes[at].name_count = static_cast<uint32_t>(children.size());
    tree.inodes[at].nlink = 2;
    for (uint32_t child : children) {
      uint32_t inode = nodes_[child].inode;
      if (place_of[inode] == kNone) add_inode(inode, child);
      TreeInode& made = tree.inodes[place_of[inode]];
      if (made.is_directory()) {
        made.parent = at;
        ++tree.inodes[at].nlink;
      } else {
        ++made.nlink;
      }
      tree.names.push_back({names_.name(child), place_of[inode]});
    }
  }
  return tree;
}

}  // namespace

Result<Tree> merge(std::span<const FileTable* const> layers_bottom_up) {
  size_t entries = 0;
  for (const FileTable* table : layers_bottom_up) entries += table->size();
  Merger merger(entries);
  uint32_t layer = 0;
  for (const FileTable* table : layers_bottom_up) HYDRANT_TRY_VOID(merger.add_layer(layer++, *table));
  return std::move(merger).finish();
}

}  // namespace hydrant::image
