// What fetchd must know after a restart: which objects there are and where their bytes come from, the images made of
// them, and the documents that resolved them. SQLite in WAL mode; docs/formats/catalogue.md has the tables.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/error.h"

struct sqlite3;

namespace hydrant::fetch {

enum class ObjectKind : int {
  kMetadata = 1,
  kLayer = 2,
  kFile = 3,
  kTocLayer = 4,
  kPushedLayer = 5,
  kLateLayer = 6,
  kTarball = 7
};

struct ObjectRow {
  std::string id;  // cookie key
  ObjectKind kind = ObjectKind::kMetadata;
  uint64_t size = 0;               // of the device, a multiple of 4096
  std::string source;              // canonical SourceReference; may hold a URL's secrets
  std::optional<bool> plain_http;  // as prepare was asked
  Digest layer;                    // of layers: of the stored blob; of kLayer it also names the index file
  uint64_t stored_size = 0;        // of layers, kFile and kTarball
};

struct ImageRow {
  std::string fsid;
  std::string key;  // what the metadata image depends on: see prepare.cpp
  std::string source;
  std::string manifest;
  std::string platform;
  std::vector<std::string> devices;  // in the metadata's slot order
  std::string facts;                 // proto::ImageFacts as JSON
};

// Thread-safe; every call is one short transaction.
class Catalogue {
 public:
  static constexpr int kSchema = 1;

  // Makes the file (mode 0600) when it is missing. kUnsupported: made by a newer fetchd; kCorrupt: no catalogue.
  static Result<std::unique_ptr<Catalogue>> open(const std::string& path);
  ~Catalogue();

  // Records an image and its objects in one step; rows of the same ids are replaced.
  Result<> put_image(const ImageRow& image, const std::vector<ObjectRow>& objects);
  // kNotFound names the id.
  Result<ObjectRow> object(const std::string& id);
  Result<ImageRow> image(const std::string& fsid);
  Result<ImageRow> image_by_key(const std::string& key);

  // An object that exists only while a layer streams in; put_image replaces the row.
  Result<> put_object(const ObjectRow& object);

  // Manifests and configs, which never change under their digest.
  Result<> put_document(const Digest& digest, std::string_view media_type, std::string_view body);
  struct Document {
    std::string media_type;
    std::string body;
  };
  Result<Document> document(const Digest& digest);

  // What a tag stood for when it was last resolved.
  Result<> put_tag(const std::string& store, const std::string& tag, const Digest& manifest);
  Result<Digest> tag(const std::string& store, const std::string& tag);

  // A name that an operator has given an object, for good: what the cache has under a name must not change. kExists:
  // it is another object's.
  Result<> name_object(const std::string& name, const std::string& id);
  // By its id or else by such a name.
  Result<ObjectRow> object_called(const std::string& name);

 private:
  class Statement;
  explicit Catalogue(sqlite3* db) : db_(db) {}
  Result<> run(const char* sql);
  Result<> put(const ObjectRow& object);
  Result<ImageRow> image_where(const char* sql, const std::string& value, const char* what);
  Error error(std::string_view doing) const;

  std::mutex mutex_;  // guards the connection
  sqlite3* db_;
};

}  // namespace hydrant::fetch
