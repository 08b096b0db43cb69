#include "fetch/catalogue.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "fetch/credential_store.h"
#include "proto/admin.h"

namespace hydrant::fetch {
namespace {

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = testing::TempDir() + "fetchXXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

ObjectRow layer_row(const std::string& id) {
  ObjectRow row;
  row.id = id;
  row.kind = ObjectKind::kLayer;
  row.size = uint64_t{5} << 40;
  row.source = "oci:/srv/app:1";
  row.plain_http = false;
  row.layer = sha256(as_bytes("layer"));
  row.stored_size = 12345;
  return row;
}

ImageRow image_row() {
  ImageRow row;
  row.fsid = "f";
  row.key = "k";
  row.source = "oci:/srv/app:1";
  row.manifest = "sha256:1";
  row.platform = "linux/amd64";
  row.devices = {"b", "a"};
  row.facts = "{}";
  return row;
}

TEST(Catalogue, KeepsImagesObjectsAndTagsOverAReopen) {
  TempDirectory directory;
  {
    auto catalogue = Catalogue::open(directory / "c.db");
    ASSERT_TRUE(catalogue) << catalogue.error().what;
    ASSERT_TRUE((*catalogue)->put_image(image_row(), {layer_row("a"), layer_row("b")}));
    ASSERT_TRUE((*catalogue)->put_tag("registry/app", "1", sha256(as_bytes("m"))));
    ASSERT_TRUE((*catalogue)->put_document(sha256(as_bytes("m")), "type", "m"));
  }
  auto catalogue = Catalogue::open(directory / "c.db");
  ASSERT_TRUE(catalogue) << catalogue.error().what;
  auto row = (*catalogue)->object("b");
  ASSERT_TRUE(row);
  EXPECT_EQ(row->kind, ObjectKind::kLayer);
  EXPECT_EQ(row->size, uint64_t{5} << 40);
  EXPECT_EQ(row->plain_http, std::optional<bool>(false));
  EXPECT_EQ(row->layer, sha256(as_bytes("layer")));
  EXPECT_EQ(row->stored_size, 12345U);
  auto image = (*catalogue)->image_by_key("k");
  ASSERT_TRUE(image);
  EXPECT_EQ(image->devices, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ((*catalogue)->tag("registry/app", "1"), sha256(as_bytes("m")));
  EXPECT_EQ((*catalogue)->document(sha256(as_bytes("m")))->body, "m");
}

// Schema 1 as it was released, with rows of it: never to be edited, only joined by later schemas. Every later
// hydrant-fetchd reads it.
TEST(Catalogue, TheGoldenSchemaStaysReadable) {
  TempDirectory directory;
  auto golden = read_file(HYDRANT_TESTDATA "/catalogue-v1.sql");
  ASSERT_TRUE(golden) << golden.error().what;
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((directory / "c.db").c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, golden->c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);

  auto opened = Catalogue::open(directory / "c.db");
  ASSERT_TRUE(opened) << opened.error().what;
  Catalogue& catalogue = **opened;
  const std::string device = "46296a82eecce47d220cfb6dee213031f0abf20f9db7027e80f9a5956b9086d2";
  const std::string manifest = "f9c56ee15debc357a1eea96561c956e8b9ce752bc952d8174d2c8f04206f1d44";
  auto layer = catalogue.object(device);
  ASSERT_TRUE(layer) << layer.error().what;
  EXPECT_EQ(layer->kind, ObjectKind::kLayer);
  EXPECT_EQ(layer->size, 3149824U);
  EXPECT_EQ(layer->source, "registry:5000/small:latest");
  EXPECT_EQ(layer->plain_http, std::optional(true));
  EXPECT_EQ(layer->layer.hex(), "39d89d115f682d2a894b62d8e40225905c6d6512b423834c4c2519ebbbb9e56f");
  EXPECT_EQ(layer->stored_size, 3147273U);
  auto image = catalogue.image_by_key("c10395ce6c8fc97b57b5ce8521a11c8f1e305ee15d71e673f74c499b26d5277b");
  ASSERT_TRUE(image) << image.error().what;
  EXPECT_EQ(image->fsid, "b81f562ffdddddb5a61d28dc0af0163830d4815080c1a9ca3167cb01909d295a");
  EXPECT_EQ(image->manifest, "sha256:" + manifest);
  EXPECT_EQ(image->platform, "linux/amd64");
  EXPECT_EQ(image->devices, std::vector{device});
  EXPECT_EQ(catalogue.object(image->fsid)->kind, ObjectKind::kMetadata);
  auto facts = proto::parse_image_facts(image->facts);
  ASSERT_TRUE(facts) << facts.error().what;
  ASSERT_EQ(facts->layers.size(), 1U);
  EXPECT_TRUE(facts->layers[0].lazy);
  EXPECT_EQ(facts->layers[0].proof.granule, 131072U);
  EXPECT_EQ(facts->unpacked_bytes, 3145734U);
  auto file = catalogue.object_called("app");
  ASSERT_TRUE(file) << file.error().what;
  EXPECT_EQ(file->kind, ObjectKind::kFile);
  EXPECT_EQ(file->plain_http, std::nullopt);
  EXPECT_EQ(proto::parse_image_facts(
                catalogue.image("d1ace59ad8ace244a4bf4482be355fd65e798d7b313f7f0d677d39ecdb753b4e")->facts)
                ->form,
            "file");
  EXPECT_EQ(catalogue.tag("registry:5000/small", "latest")->hex(), manifest);
  EXPECT_EQ(catalogue.document(*Digest::parse("sha256:" + manifest))->body, R"({"schemaVersion": 2})");
  EXPECT_TRUE(catalogue.put_image(image_row(), {layer_row("a"), layer_row("b")})) << "it is written to as well";
}

TEST(Catalogue, ANameIsForOneObjectForGood) {
  TempDirectory dir;
  const std::string one = sha256(as_bytes("one")).hex(), two = sha256(as_bytes("two")).hex();
  {
    auto catalogue = *Catalogue::open(dir / "c.db");
    ASSERT_TRUE(catalogue->put_object(layer_row(one)));
    ASSERT_TRUE(catalogue->put_object(layer_row(two)));
    EXPECT_TRUE(catalogue->name_object("app", one));
    EXPECT_TRUE(catalogue->name_object("app", one));
  }
  auto catalogue = *Catalogue::open(dir / "c.db");
  EXPECT_EQ(catalogue->name_object("app", two).error().code, Code::kExists);
  EXPECT_EQ(catalogue->name_object(one, two).error().code, Code::kExists) << "an id is a name already";
  EXPECT_EQ(catalogue->object_called("app")->id, one);
  EXPECT_EQ(catalogue->object_called(two)->id, two);
  EXPECT_EQ(catalogue->object_called("other").error().code, Code::kNotFound);
}

TEST(Catalogue, NamesWhatItDoesNotKnow) {
  TempDirectory directory;
  auto catalogue = Catalogue::open(directory / "c.db");
  ASSERT_TRUE(catalogue);
  EXPECT_EQ((*catalogue)->object("x").error().code, Code::kNotFound);
  EXPECT_EQ((*catalogue)->image("x").error().code, Code::kNotFound);
  EXPECT_EQ((*catalogue)->tag("s", "t").error().code, Code::kNotFound);
}

TEST(Catalogue, IsReadableByItsOwnerAlone) {
  TempDirectory directory;
  auto catalogue = Catalogue::open(directory / "c.db");
  ASSERT_TRUE(catalogue);
  ASSERT_TRUE((*catalogue)->put_tag("s", "t", Digest{}));
  for (const char* name : {"c.db", "c.db-wal", "c.db-shm"}) {
    struct stat status {};
    ASSERT_EQ(::stat((directory / name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 0777, 0600U) << name;
  }
}

TEST(Catalogue, RefusesANewerSchemaAndWhatIsNoCatalogue) {
  TempDirectory directory;
  {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((directory / "new.db").c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version=2; CREATE TABLE t(x)", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  }
  EXPECT_EQ(Catalogue::open(directory / "new.db").error().code, Code::kUnsupported);
  ASSERT_TRUE(write_file_atomic(directory / "text.db", as_bytes(std::string(9000, 'x'))));
  EXPECT_EQ(Catalogue::open(directory / "text.db").error().code, Code::kCorrupt);
}

TEST(CredentialStore, KeepsConfigsOverAReopenForItsOwnerAlone) {
  TempDirectory directory;
  const std::string path = directory / "credentials.json";
  const std::string config = R"({"auths":{"r.example":{"auth":"dXNlcjpwYXNz"}}})";
  {
    auto store = CredentialStore::open(path);
    ASSERT_TRUE(store);
    EXPECT_TRUE(*(*store)->put("r.example", config));
    EXPECT_FALSE(*(*store)->put("r.example", config)) << "nothing new";
  }
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  auto store = CredentialStore::open(path);
  ASSERT_TRUE(store);
  auto found = (*store)->find("r.example");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->find("r.example", "app", Deadline::after(std::chrono::seconds(1)))->password, "pass");
  EXPECT_TRUE(
      (*store)->find("other.example")->find("r.example", "app", Deadline::after(std::chrono::seconds(1)))->empty());
}

// Version 1: never to be edited, only joined by later ones.
TEST(CredentialStore, TheGoldenFileStaysReadable) {
  auto store = CredentialStore::open(HYDRANT_TESTDATA "/credentials-v1.json");
  ASSERT_TRUE(store) << store.error().what;
  auto found = (*store)->find("r.example");
  ASSERT_TRUE(found) << found.error().what;
  EXPECT_EQ(found->find("r.example", "app", Deadline::after(std::chrono::seconds(1)))->password, "pass");
}

TEST(CredentialStore, NeverQuotesABrokenConfig) {
  TempDirectory directory;
  auto store = CredentialStore::open(directory / "credentials.json");
  ASSERT_TRUE(store);
  auto put = (*store)->put("r.example", "{\"auths\": secret");
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().what.find("secret"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(directory / "credentials.json"));
}

}  // namespace
}  // namespace hydrant::fetch
