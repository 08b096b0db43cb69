#include "image/tree/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace hydrant::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

FileEntry entry(std::string path, FileType type, uint32_t uid = 0, std::string target = {}) {
  FileEntry out;
  out.path = std::move(path);
  out.type = type;
  out.uid = uid;
  out.mode = 0644;
  out.link_target = std::move(target);
  return out;
}
// The uid tells entries apart.
FileEntry file(std::string path, uint32_t uid = 0) { return entry(std::move(path), FileType::kRegular, uid); }
FileEntry dir(std::string path, uint32_t uid = 0) { return entry(std::move(path), FileType::kDirectory, uid); }
FileEntry symlink(std::string path, std::string target = "target") {
  return entry(std::move(path), FileType::kSymlink, 0, std::move(target));
}
FileEntry hard(std::string path, std::string target) {
  return entry(std::move(path), FileType::kHardLink, 99, std::move(target));
}
FileEntry hide(std::string path) { return entry(std::move(path), FileType::kWhiteout); }
FileEntry opaque(std::string path) { return entry(std::move(path), FileType::kOpaque); }

Result<Tree> merged(const std::vector<FileTable>& layers) {
  std::vector<const FileTable*> views;
  for (const FileTable& layer : layers) views.push_back(&layer);
  return merge(views);
}

struct Rule {
  const char* sentence;
  std::vector<FileTable> layers;
  std::vector<std::string> expected;  // "path[/] layer.uid nlink", or one "refused: words"
};

// Paths in tree order; '/' ends a directory's.
std::vector<std::string> show(const Tree& tree) {
  std::vector<std::string> out;
  std::vector<std::pair<InodeIndex, std::string>> todo = {{0, ""}};
  while (!todo.empty()) {
    auto [at, path] = todo.back();
    todo.pop_back();
    for (const TreeName& name : tree.children(tree.inodes[at])) {
      const TreeInode& inode = tree.inodes[name.inode];
      std::string full = path + std::string(name.name) + (inode.is_directory() ? "/" : "");
      std::string who = inode.entry ? std::to_string(inode.layer) + "." + std::to_string(inode.entry->uid) : "implied";
      out.push_back(full + " " + who + " " + std::to_string(inode.nlink));
      if (inode.is_directory()) todo.emplace_back(name.inode, full);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

class MergeRule : public testing::TestWithParam<Rule> {};

TEST_P(MergeRule, Holds) {
  const Rule& rule = GetParam();
  auto tree = merged(rule.layers);
  if (rule.expected.size() == 1 && rule.expected[0].starts_with("refused: ")) {
    ASSERT_FALSE(tree) << rule.sentence;
    EXPECT_EQ(tree.error().code, Code::kCorrupt);
    EXPECT_THAT(tree.error().what, HasSubstr(rule.expected[0].substr(9))) << rule.sentence;
    return;
  }
  ASSERT_TRUE(tree) << rule.sentence << ": " << tree.error().what;
  EXPECT_EQ(show(*tree), rule.expected) << rule.sentence;
}

const Rule kRules[] = {
    {"missing parents come into being", {{file("a/b/c", 1)}}, {"a/ implied 3", "a/b/ implied 2", "a/b/c 0.1 1"}},
    {"a listed parent may come after its children", {{file("a/b", 1), dir("a", 2)}}, {"a/ 0.2 2", "a/b 0.1 1"}},
    {"directory over directory: attributes of the upper, children of both",
     {{dir("d", 1), file("d/x", 1), file("d/y", 1)}, {dir("d", 2), file("d/y", 2), file("d/z", 2)}},
     {"d/ 1.2 2", "d/x 0.1 1", "d/y 1.2 1", "d/z 1.2 1"}},
    {"an upper layer that does not list the directory keeps its attributes",
     {{dir("d", 1)}, {file("d/x", 2)}},
     {"d/ 0.1 2", "d/x 1.2 1"}},
    {"a file replaces a directory with all below it",
     {{dir("d"), dir("d/e"), file("d/e/f")}, {file("d", 2)}},
     {"d 1.2 1"}},
    {"a directory replaces a file", {{file("d", 1)}, {dir("d", 2), file("d/x", 2)}}, {"d/ 1.2 2", "d/x 1.2 1"}},
    {"a directory replaces a symlink, which is never followed",
     {{dir("usr/bin"), symlink("bin")}, {dir("bin", 2), file("bin/x", 2)}},
     {"bin/ 1.2 2", "bin/x 1.2 1", "usr/ implied 3", "usr/bin/ 0.0 2"}},
    {"a symlink replaces a directory", {{dir("d"), file("d/x")}, {symlink("d")}}, {"d 1.0 1"}},
    {"a directory that was replaced comes back empty",
     {{dir("d"), file("d/x")}, {file("d")}, {dir("d", 3)}},
     {"d/ 2.3 2"}},
    {"a whiteout hides a file of lower layers", {{file("a"), file("b")}, {hide("a")}}, {"b 0.0 1"}},
    {"a whiteout hides a directory with all below it",
     {{dir("d"), file("d/e/f")}, {hide("d")}, {dir("d", 3)}},
     {"d/ 2.3 2"}},
    {"a whiteout of nothing does nothing",
     {{file("a")}, {hide("x"), hide("a/b"), opaque("q"), opaque("a")}},
     {"a 0.0 1"}},
    {"a whiteout never hides its own layer, before", {{file("a", 1)}, {hide("a"), file("a", 2)}}, {"a 1.2 1"}},
    {"a whiteout never hides its own layer, after", {{file("a", 1)}, {file("a", 2), hide("a")}}, {"a 1.2 1"}},
    {"a whiteout in the bottom layer does nothing", {{file("a", 1), hide("a")}}, {"a 0.1 1"}},
    {"a whiteout of a directory that its layer fills again keeps the new children only",
     {{dir("d", 1), file("d/old")}, {file("d/new", 2), hide("d")}},
     {"d/ implied 2", "d/new 1.2 1"}},
    {"an opaque mark hides lower children, not the directory",
     {{dir("d", 1), file("d/x"), file("d/e/y")}, {file("d/z", 2), opaque("d")}},
     {"d/ 0.1 2", "d/z 1.2 1"}},
    {"an opaque root hides everything below", {{file("a"), file("d/b")}, {opaque(""), file("c", 2)}}, {"c 1.2 1"}},
    {"a hidden name may return in a later layer", {{file("a", 1)}, {hide("a")}, {file("a", 3)}}, {"a 2.3 1"}},
    {"names of one inode are counted",
     {{file("a", 1), hard("b", "a"), hard("c", "b")}},
     {"a 0.1 3", "b 0.1 3", "c 0.1 3"}},
    {"a hard link may come before its target",
     {{hard("b", "a"), hard("c", "b"), file("a", 1)}},
     {"a 0.1 3", "b 0.1 3", "c 0.1 3"}},
    {"a hard link finds its own layer's target before a lower one",
     {{file("a", 1)}, {hard("b", "a"), file("a", 2)}},
     {"a 1.2 2", "b 1.2 2"}},
    {"a hard link reaches into lower layers", {{file("a", 1)}, {hard("b", "a")}}, {"a 0.1 2", "b 0.1 2"}},
    {"a hard link keeps what its target's name was at that point",
     {{file("a", 1), hard("b", "a"), file("a", 2)}},
     {"a 0.2 1", "b 0.1 1"}},
    {"a hard link outlives the first name in an upper layer",
     {{file("a", 1), hard("b", "a")}, {hide("a")}},
     {"b 0.1 1"}},
    {"replacing one name leaves the others", {{file("a", 1), hard("b", "a")}, {file("a", 2)}}, {"a 1.2 1", "b 0.1 1"}},
    {"a hard link to a symlink is a name of the symlink", {{symlink("s"), hard("t", "s")}}, {"s 0.0 2", "t 0.0 2"}},
    {"a hard link replaced in its own layer needs no target", {{hard("b", "nowhere"), file("b", 1)}}, {"b 0.1 1"}},
    {"the last of two entries wins", {{file("a", 1), file("a", 2)}}, {"a 0.2 1"}},
    {"a directory listed twice keeps its children",
     {{dir("d", 1), file("d/x"), dir("d", 2)}},
     {"d/ 0.2 2", "d/x 0.0 1"}},
    {"a file after a directory in one layer replaces it", {{dir("d"), file("d/x"), file("d", 2)}}, {"d 0.2 1"}},
    {"a missing hard link target is refused", {{file("a"), hard("b", "x")}}, {"refused: which is missing"}},
    {"a target that its layer hides is missing", {{file("a")}, {hide("a"), hard("b", "a")}}, {"refused: missing"}},
    {"a hard link to a directory is refused", {{dir("d"), hard("b", "d")}}, {"refused: directory"}},
    {"a hard link to the root is refused", {{hard("b", "")}}, {"refused: directory"}},
    {"a hard link to itself is refused", {{file("a")}, {hard("a", "a")}}, {"refused: circle"}},
    {"a circle of hard links is refused", {{hard("a", "b"), hard("b", "c"), hard("c", "a")}}, {"refused: circle"}},
    {"an entry below a file of its layer is refused", {{file("a"), file("a/b")}}, {"refused: parent"}},
    {"an entry below a lower layer's symlink goes where that leads",
     {{dir("usr/bin", 1), symlink("bin", "usr/bin")}, {file("bin/x", 2)}},
     {"bin 0.0 1", "usr/ implied 3", "usr/bin/ 0.1 2", "usr/bin/x 1.2 1"}},
    {"an entry below a symlink of its layer too",
     {{symlink("a", "d"), file("a/b")}},
     {"a 0.0 1", "d/ implied 2", "d/b 0.0 1"}},
    {"an absolute target begins at the image's root, and nothing is above it",
     {{symlink("l", "/../../d/./e//"), symlink("d/e", "../../f")}, {file("l/x", 1)}},
     {"d/ implied 2", "d/e 0.0 1", "f/ implied 2", "f/x 1.1 1", "l 0.0 1"}},
    {"a whiteout hides what a symlink leads to",
     {{file("d/x"), file("d/y"), symlink("l", "d")}, {hide("l/x")}},
     {"d/ implied 2", "d/y 0.0 1", "l 0.0 1"}},
    {"a whiteout of a symlink hides the link",
     {{file("d/x"), symlink("l", "d")}, {hide("l")}},
     {"d/ implied 2", "d/x 0.0 1"}},
    {"a hard link's target is found through symlinks",
     {{file("d/x", 1), symlink("l", "d")}, {hard("y", "l/x")}},
     {"d/ implied 2", "d/x 0.1 2", "l 0.0 1", "y 0.1 2"}},
    {"a link that its layer turns is followed as it stands at that point",
     {{symlink("l", "a"), file("l/x", 1), symlink("l", "b"), file("l/x", 2)}},
     {"a/ implied 2", "a/x 0.1 1", "b/ implied 2", "b/x 0.2 1", "l 0.0 1"}},
    {"a circle of symlinks is refused",
     {{symlink("a", "b"), symlink("b", "a"), file("a/x")}},
     {"refused: too many symbolic"}},
    {"a symlink to a file leads nowhere", {{file("f"), symlink("a", "f"), file("a/x")}}, {"refused: parent"}},
    {"an entry below a lower layer's file is refused", {{file("a")}, {file("a/b")}}, {"refused: lower layer"}},
    {"unless its layer lists the directory, at any place",
     {{file("a")}, {file("a/b", 1), dir("a", 2)}},
     {"a/ 1.2 2", "a/b 1.1 1"}},
    {"a root that is a file is refused", {{file("")}}, {"refused: root"}},
    {"a whiteout of the root is refused", {{hide("")}}, {"refused: root"}},
    {"a path out of form is refused: dots", {{file("a/../b")}}, {"refused: normal form"}},
    {"a path out of form is refused: slashes", {{file("a//b")}}, {"refused: normal form"}},
    {"a path out of form is refused: trailing slash", {{dir("a/")}}, {"refused: normal form"}},
    {"an empty image is a root", {{}, {}}, {}},
};

INSTANTIATE_TEST_SUITE_P(Rules, MergeRule, testing::ValuesIn(kRules));

TEST(Merge, TheRootTakesTheUppermostAttributes) {
  std::vector<FileTable> layers = {{dir("", 1)}, {file("x")}, {dir("", 3)}, {file("y")}};
  Tree tree = *merged(layers);
  EXPECT_EQ(tree.inodes[0].entry->uid, 3u);
  EXPECT_EQ(tree.inodes[0].parent, 0u);
}

TEST(Merge, SortsNamesAsBytesAndKeepsDirectoriesTogether) {
  std::vector<FileTable> layers = {{file("b"), file("\xff"), dir("a"), file("a/2"), file("a/10"), file("B")}};
  Tree tree = *merged(layers);
  std::vector<std::string> names;
  for (const TreeName& name : tree.names) names.emplace_back(name.name);
  EXPECT_THAT(names, ElementsAre("B", "a", "b", "\xff", "10", "2"));
  for (InodeIndex at = 1; at < tree.inodes.size(); ++at) EXPECT_EQ(tree.names[at - 1].inode, at);
}

TEST(Merge, DepthCostsNoStack) {
  std::string path;
  for (int i = 0; i < 200'000; ++i) path += "d/";
  std::vector<FileTable> layers = {{file(path + "f")}, {hide("d")}, {file(path + "g")}};
  Tree tree = *merged(layers);
  EXPECT_EQ(tree.inodes.size(), 200'002u);
}

TEST(Merge, LongChainsOfLinksCostNoStack) {
  FileTable table;
  for (int i = 0; i < 200'000; ++i) table.push_back(hard("l" + std::to_string(i), "l" + std::to_string(i + 1)));
  table.push_back(file("l200000"));
  std::vector<FileTable> layers = {std::move(table)};
  EXPECT_EQ(merged(layers)->inodes[1].nlink, 200'001u);
}

// A slow model of rule 2 and the whiteouts: a map of paths, without links and refusals.
std::map<std::string, std::string> model(const std::vector<FileTable>& layers) {
  std::map<std::string, std::string> tree;  // path → "d" or "layer.uid"
  auto erase_below = [&](std::string path) {
    path += '/';
    tree.erase(tree.lower_bound(path), tree.lower_bound(path.substr(0, path.size() - 1) + "0"));  // '0' follows '/'
  };
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (const FileEntry& one : layers[layer]) {
      if (one.type != FileType::kWhiteout && one.type != FileType::kOpaque) continue;
      erase_below(one.path);
      if (one.type == FileType::kWhiteout) tree.erase(one.path);
    }
    for (const FileEntry& one : layers[layer]) {
      if (one.type == FileType::kWhiteout || one.type == FileType::kOpaque) continue;
      if (one.type != FileType::kDirectory) erase_below(one.path);
      tree[one.path] = one.type == FileType::kDirectory ? "d" : std::to_string(layer) + "." + std::to_string(one.uid);
    }
  }
  return tree;
}

TEST(Merge, AgreesWithASlowModel) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::vector<FileTable> layers(1 + random() % 4);
    for (FileTable& layer : layers) {
      for (int i = random() % 8; i > 0; --i) {
        // Every prefix is listed as a directory, so nothing is refused.
        std::string path;
        for (int depth = random() % 3; depth >= 0; --depth) {
          path += std::string(path.empty() ? "" : "/") + static_cast<char>('a' + random() % 2);
          if (depth > 0) layer.push_back(dir(path));
        }
        switch (random() % 4) {
          case 0: layer.push_back(dir(path)); break;
          case 1: layer.push_back(file(path, random() % 1000)); break;
          case 2: layer.push_back(random() % 2 ? hide(path) : opaque(path)); break;
          case 3: layer.push_back(file(path, random() % 1000)); break;
        }
      }
    }
    auto tree = merged(layers);
    // Directories over files of the same layer are refused or not by their order; the model knows only the rest.
    if (!tree) continue;
    std::map<std::string, std::string> got;
    for (const std::string& line : show(*tree)) {
      size_t blank = line.find(' ');
      std::string path = line.substr(0, blank);
      bool is_dir = path.ends_with('/');
      if (is_dir) path.pop_back();
      got[path] = is_dir ? "d" : line.substr(blank + 1, line.rfind(' ') - blank - 1);
    }
    ASSERT_EQ(got, model(layers)) << round;
  }
}

}  // namespace
}  // namespace hydrant::image
