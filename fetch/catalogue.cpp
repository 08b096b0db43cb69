#include "fetch/catalogue.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace hydrant::fetch {

namespace {

constexpr char kTables[] = R"(
CREATE TABLE objects(id TEXT PRIMARY KEY, kind INTEGER NOT NULL, size INTEGER NOT NULL, source TEXT NOT NULL,
                     plain_http INTEGER, layer TEXT NOT NULL, stored_size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE images(fsid TEXT PRIMARY KEY, key TEXT NOT NULL, source TEXT NOT NULL, manifest TEXT NOT NULL,
                    platform TEXT NOT NULL, devices TEXT NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX images_by_key ON images(key);
CREATE TABLE documents(digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE tags(store TEXT, tag TEXT, manifest TEXT NOT NULL, PRIMARY KEY(store, tag)) WITHOUT ROWID;
)";

}  // namespace

// A prepared statement that binds by position and reads by column. Used under the catalogue's lock.
class Catalogue::Statement {
 public:
  Statement(sqlite3* db, const char* sql) { sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr); }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;

  Statement& bind(std::string_view text) {
    sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
    return *this;
  }
  Statement& bind(int64_t number) {
    sqlite3_bind_int64(statement_, ++bound_, number);
    return *this;
  }
  Statement& bind_null() {
    sqlite3_bind_null(statement_, ++bound_);
    return *this;
  }
  // SQLITE_ROW, SQLITE_DONE or an error; a statement that did not compile is an error.
  int step() { return statement_ ? sqlite3_step(statement_) : SQLITE_ERROR; }
  std::string text(int column) {
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return data ? std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : std::string();
  }
  int64_t number(int column) { return sqlite3_column_int64(statement_, column); }
  bool null(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

Error Catalogue::error(std::string_view doing) const {
  int code = sqlite3_errcode(db_) & 0xff;
  Error error{.code = Code::kIo, .what = "catalogue: " + std::string(doing) + ": " + sqlite3_errmsg(db_)};
  if (code == SQLITE_FULL) error.code = Code::kNoSpace;
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) error.code = Code::kCorrupt;
  if (code == SQLITE_BUSY) error.code = Code::kBusy;
  return error;
}

Result<std::unique_ptr<Catalogue>> Catalogue::open(const std::string& path) {
  // SQLite would make the file readable by all, and its -wal and -shm files take the mode of the file.
  HYDRANT_TRY(Fd file, open_file(path, O_RDWR | O_CREAT, 0600));
  file.reset();
  sqlite3* db = nullptr;
  int opened = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Catalogue> catalogue(new Catalogue(db));
  if (opened != SQLITE_OK) return fail(catalogue->error("open " + path));
  sqlite3_busy_timeout(db, 2000);

  // synchronous=NORMAL loses the last transactions in a power cut, never the file: a lost image is prepared again.
  HYDRANT_TRY_VOID(catalogue->run("PRAGMA journal_mode=WAL"));
  HYDRANT_TRY_VOID(catalogue->run("PRAGMA synchronous=NORMAL"));
  HYDRANT_TRY_VOID(catalogue->run("PRAGMA cache_size=-512"));
  int version = 0;
  {
    Statement pragma(db, "PRAGMA user_version");
    if (pragma.step() != SQLITE_ROW) return fail(catalogue->error("read the version of " + path));
    version = static_cast<int>(pragma.number(0));
  }
  if (version > kSchema)
    return fail(Code::kUnsupported, path + " was made by a newer hydrant-fetchd (schema " + std::to_string(version) +
                                        ", this one knows " + std::to_string(kSchema) +
                                        "): run the newer one, or move the file away");
  if (version == 0) {
    HYDRANT_TRY_VOID(catalogue->run("BEGIN IMMEDIATE"));
    HYDRANT_TRY_VOID(catalogue->run(kTables));
    HYDRANT_TRY_VOID(catalogue->run("PRAGMA user_version=1"));
    HYDRANT_TRY_VOID(catalogue->run("COMMIT"));
  }
  return catalogue;
}

Catalogue::~Catalogue() { sqlite3_close_v2(db_); }

Result<> Catalogue::run(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return fail(error("execute"));
  return {};
}

Result<> Catalogue::put(const ObjectRow& object) {
  Statement insert(db_, "INSERT OR REPLACE INTO objects VALUES(?,?,?,?,?,?,?)");
  insert.bind(object.id).bind(static_cast<int64_t>(object.kind)).bind(static_cast<int64_t>(object.size));
  insert.bind(object.source);
  if (object.plain_http)
    insert.bind(int64_t{*object.plain_http});
  else
    insert.bind_null();
  insert.bind(object.layer.hex()).bind(static_cast<int64_t>(object.stored_size));
  if (insert.step() != SQLITE_DONE) return fail(error("record object"));
  return {};
}

Result<> Catalogue::put_object(const ObjectRow& object) {
  std::lock_guard lock(mutex_);
  return put(object);
}

Result<> Catalogue::put_image(const ImageRow& image, const std::vector<ObjectRow>& objects) {
  std::lock_guard lock(mutex_);
  HYDRANT_TRY_VOID(run("BEGIN IMMEDIATE"));
  auto all = [&]() -> Result<> {
    for (const ObjectRow& object : objects) HYDRANT_TRY_VOID(put(object));
    Statement insert(db_, "INSERT OR REPLACE INTO images VALUES(?,?,?,?,?,?,?)");
    insert.bind(image.fsid).bind(image.key).bind(image.source).bind(image.manifest).bind(image.platform);
    insert.bind(nlohmann::json(image.devices).dump()).bind(image.facts);
    if (insert.step() != SQLITE_DONE) return fail(error("record image"));
    return run("COMMIT");
  }();
  if (!all) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return all;
}

Result<ObjectRow> Catalogue::object(const std::string& id) {
  std::lock_guard lock(mutex_);
  Statement select(db_, "SELECT kind,size,source,plain_http,layer,stored_size FROM objects WHERE id=?");
  int step = select.bind(id).step();
  if (step == SQLITE_DONE) return fail(Code::kNotFound, "no object " + id + " in the catalogue");
  if (step != SQLITE_ROW) return fail(error("look up object"));
  ObjectRow row;
  row.id = id;
  row.kind = static_cast<ObjectKind>(select.number(0));
  row.size = static_cast<uint64_t>(select.number(1));
  row.source = select.text(2);
  if (!select.null(3)) row.plain_http = select.number(3) != 0;
  HYDRANT_TRY(row.layer, Digest::parse(select.text(4)));
  row.stored_size = static_cast<uint64_t>(select.number(5));
  return row;
}

Result<ImageRow> Catalogue::image_where(const char* sql, const std::string& value, const char* what) {
  std::lock_guard lock(mutex_);
  Statement select(db_, sql);
  int step = select.bind(value).step();
  if (step == SQLITE_DONE) return fail(Code::kNotFound, std::string("no image with ") + what + " " + value);
  if (step != SQLITE_ROW) return fail(error("look up image"));
  ImageRow row;
  row.fsid = select.text(0);
  row.key = select.text(1);
  row.source = select.text(2);
  row.manifest = select.text(3);
  row.platform = select.text(4);
  auto devices = nlohmann::json::parse(select.text(5), nullptr, false);
  if (!devices.is_array()) return fail(Code::kCorrupt, "catalogue: devices of image " + row.fsid);
  for (const auto& device : devices) {
    if (!device.is_string()) return fail(Code::kCorrupt, "catalogue: devices of image " + row.fsid);
    row.devices.push_back(device.get<std::string>());
  }
  row.facts = select.text(6);
  return row;
}

Result<ImageRow> Catalogue::image(const std::string& fsid) {
  return image_where("SELECT * FROM images WHERE fsid=?", fsid, "fsid");
}

Result<ImageRow> Catalogue::image_by_key(const std::string& key) {
  return image_where("SELECT * FROM images WHERE key=?", key, "key");
}

Result<> Catalogue::put_document(const Digest& digest, std::string_view media_type, std::string_view body) {
  std::lock_guard lock(mutex_);
  Statement insert(db_, "INSERT OR REPLACE INTO documents VALUES(?,?,?)");
  if (insert.bind(digest.hex()).bind(media_type).bind(body).step() != SQLITE_DONE)
    return fail(error("record document"));
  return {};
}

Result<Catalogue::Document> Catalogue::document(const Digest& digest) {
  std::lock_guard lock(mutex_);
  Statement select(db_, "SELECT media_type,body FROM documents WHERE digest=?");
  int step = select.bind(digest.hex()).step();
  if (step == SQLITE_DONE) return fail(Code::kNotFound, "no document " + digest.text());
  if (step != SQLITE_ROW) return fail(error("look up document"));
  return Document{select.text(0), select.text(1)};
}

Result<> Catalogue::put_tag(const std::string& store, const std::string& tag, const Digest& manifest) {
  std::lock_guard lock(mutex_);
  Statement insert(db_, "INSERT OR REPLACE INTO tags VALUES(?,?,?)");
  if (insert.bind(store).bind(tag).bind(manifest.hex()).step() != SQLITE_DONE) return fail(error("record tag"));
  return {};
}

Result<Digest> Catalogue::tag(const std::string& store, const std::string& tag) {
  std::lock_guard lock(mutex_);
  Statement select(db_, "SELECT manifest FROM tags WHERE store=? AND tag=?");
  int step = select.bind(store).bind(tag).step();
  if (step == SQLITE_DONE) return fail(Code::kNotFound, "tag " + tag + " was never resolved");
  if (step != SQLITE_ROW) return fail(error("look up tag"));
  return Digest::parse(select.text(0));
}

// A name is a tag of no store.
Result<> Catalogue::name_object(const std::string& name, const std::string& id) {
  auto known = tag("", name);
  if (!known && known.error().code != Code::kNotFound) return fail(std::move(known).error());
  if (!known) {
    HYDRANT_TRY(Digest digest, Digest::parse(id));
    HYDRANT_TRY_VOID(put_tag("", name, digest));
  }
  HYDRANT_TRY(auto object, object_called(name));
  if (object.id != id) return fail(Code::kExists, name + " is the name of another image or of an older version");
  return {};
}

Result<ObjectRow> Catalogue::object_called(const std::string& name) {
  auto found = object(name);
  if (found || found.error().code != Code::kNotFound) return found;
  auto digest = tag("", name);
  if (!digest) return digest.error().code == Code::kNotFound ? found : fail(std::move(digest).error());
  return object(digest->hex());
}

}  // namespace hydrant::fetch
