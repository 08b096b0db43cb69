// The objects that the cache has open with us, each with its handle and its filler.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "fetch/catalogue.h"
#include "fetch/filler.h"
#include "fetch/transport/control.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

// Thread-safe. The request loop opens, reads and closes; prepare expects ingests.
class Objects {
 public:
  using MakeOrigin = std::function<std::shared_ptr<Origin>(const ObjectRow&)>;

  // All three outlive the objects.
  Objects(const FillShop& shop, Catalogue& catalogue, MakeOrigin make_origin)
      : shop_(shop), catalogue_(catalogue), make_origin_(std::move(make_origin)) {}
  ~Objects() { close_all(); }

  // What copen gets: the size, or -ENOENT for an object that nobody recorded. Asks the catalogue alone.
  int64_t open(const OpenRequest& request);
  // Fills, then completes the READ on the object's handle. When that fails the READ is completed without data, which is
  // all that the protocol has for it: the cache finds the hole and gives the reader EIO.
  void read(const ReadRequest& request);
  void close(const CloseRequest& request);
  // Of the object `id`: now if it is open, else when it is opened within a minute.
  void prefetch(const std::string& id, std::vector<ByteRange> wanted);
  // The whole of it, as Filler::complete; also now or when it is opened.
  void complete(const std::string& id);
  // The connection is lost, and with it every handle. Readers stay pending at the cache: `restore` brings them back.
  void close_all();
  void expire();

  // While it lives, the next OPEN of `id` is answered with the given size and its handle goes here.
  class Ingest {
   public:
    Ingest(Objects& objects, std::string id) : objects_(objects), id_(std::move(id)) {}
    Ingest(const Ingest&) = delete;
    ~Ingest();
    // kTooSlow when the cache has not opened the object by then.
    Result<std::shared_ptr<ObjectHandle>> handle(Deadline deadline);

   private:
    friend class Objects;
    Objects& objects_;
    const std::string id_;
  };
  // The size of a device that nobody knows yet is nominal. kBusy while the same object is being ingested.
  Result<std::unique_ptr<Ingest>> expect_ingest(const std::string& id, uint64_t size = proto::kNominalSize);

  // Of an object, open or not; kept for the life of the daemon.
  std::shared_ptr<Counters> counters(const std::string& id);

 private:
  struct OpenObject {
    std::string id;
    std::shared_ptr<ObjectHandle> handle;  // shared with the filler and answers under way
    std::shared_ptr<Filler> filler;        // null while ingesting
  };

  struct Expected {
    std::shared_ptr<ObjectHandle> handle;  // null until opened
    uint64_t size = 0;
  };

  struct Awaited {
    std::vector<ByteRange> wanted = {};
    bool all = false;
    Deadline until = Deadline(Instant::min());
  };

  void fetch_ahead(const std::string& id, const std::shared_ptr<Filler>& filler, Awaited awaited);
  void await(const std::string& id, std::vector<ByteRange> wanted, bool all);

  const FillShop& shop_;
  Catalogue& catalogue_;
  const MakeOrigin make_origin_;

  std::mutex mutex_;
  std::condition_variable ingest_opened_;
  std::unordered_map<uint32_t, OpenObject> open_;  // by object_id
  std::unordered_map<std::string, Expected> ingests_;
  std::unordered_map<std::string, Awaited> prefetches_;  // of objects that are not open yet
  std::unordered_map<std::string, std::shared_ptr<Counters>> counters_;
};

}  // namespace hydrant::fetch
