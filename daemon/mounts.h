// The mounts: made, listed, taken down. What `mount -t erofs -o fsid=…,device=…,domain_id=…` was to the kernel.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/erofs_mount.h"
#include "daemon/mount_record.h"
#include "daemon/objects.h"
#include "daemon/pins.h"
#include "daemon/stored_marks.h"
#include "front/fanotify/marked_files.h"
#include "front/fuse/blob_fs.h"
#include "proto/admin.h"

namespace hydrant::daemon {

struct MountsOptions {
  std::string records;                                // directory, exists
  std::string cache;                                  // directory of the backing files
  Duration open_limit = std::chrono::seconds(30);     // for the user daemon's answer to an OPEN
  Duration supply_limit = std::chrono::seconds(120);  // for each 4 MiB of metadata
  std::string front = "fuse";                         // of mounts that do not say: fuse | fanotify
};

// What the records of mounts in the directory `records` say that their devices must hash to.
std::map<ObjectKey, proto::MerkleProof> recorded_proofs(const std::string& records);

// Thread-safe. Mounts are made in parallel; the table's lock is never held across a wait or a mount.
class Mounts {
 public:
  using Report = std::function<void(const proto::Progress&)>;

  // Blob files of a predecessor that were taken over, by what they show.
  using Handed = std::map<ObjectKey, std::string>;

  // Takes up the records of a dead predecessor. Those whose mount still stands are ours when its blob files were taken
  // over; else (`handed` is nothing) they are listed as dead until they are unmounted. The others are deleted.
  static Result<std::unique_ptr<Mounts>> create(MountsOptions options, Objects& objects, Pins& pins,
                                                front::BlobFs& blobs, StoredMarks& marks,
                                                const std::optional<Handed>& handed);

  // All or nothing: a failure leaves neither mount nor record. Errors as proto::MountRequest says.
  Result<proto::MountReply> mount(const proto::MountRequest& request, std::stop_token stop, const Report& report);
  // When it is not lazy, nothing of the mount is in use any more when it returns, unless other mount namespaces have
  // it.
  Result<> umount(const std::string& dir, bool lazy);
  // Of a dead mount: takes it down, lazily, and makes it anew. As proto::RepairRequest says.
  Result<proto::MountReply> repair(const std::string& dir, std::stop_token stop, const Report& report);
  proto::ListReply list();
  Result<proto::StatMountReply> stat(const std::string& dir);
  // Of the mount of `fsid` that was made last. kNotFound.
  Result<proto::TouchedReply> touched(const std::string& fsid);
  // As proto::ReopenRequest says.
  Result<> reopen(const std::string& fsid);
  // As proto::WithdrawRequest says.
  Result<> withdraw(const std::string& id);

  // Refuses new mounts and unmounts everything, lazily what is busy.
  void close();

 private:
  // A name in the blob file system for an object; the name goes with the last mount that uses it, the file itself when
  // the kernel has closed it.
  class BlobFile {
   public:
    BlobFile(front::BlobFs& blobs, std::string name) : blobs_(blobs), name_(std::move(name)) {}
    ~BlobFile() { blobs_.remove(name_); }
    const std::string& name() const { return name_; }

   private:
    front::BlobFs& blobs_;
    const std::string name_;
  };
  struct Device {
    std::shared_ptr<Object> object;
    // Neither: EROFS reads the backing file itself, and asks nobody. Both are shared by the mounts that use them.
    std::shared_ptr<BlobFile> blob = nullptr;
    std::shared_ptr<front::MarkedFiles::File> marked = nullptr;  // EROFS reads the backing file itself, and asks

    const char* front() const;
  };
  struct Mount {
    MountRecord record;
    Device metadata;  // no object when dead
    std::vector<Device> devices;
    bool dead = false;   // made by a predecessor that died
    bool ready = false;  // false while somebody makes it or takes it down
  };
  class Reservation;

  Mounts(MountsOptions options, Objects& objects, Pins& pins, front::BlobFs& blobs, StoredMarks& marks)
      : options_(std::move(options)), objects_(objects), pins_(pins), blobs_(blobs), marks_(marks) {}

  Result<> adopt_records(const std::optional<Handed>& handed);
  Result<> adopt(Mount& mount);
  Result<Mount> prepare(proto::MountRequest& request, std::stop_token stop);
  Result<> take_devices_from_image(proto::MountRequest& request, const Object& primary, std::stop_token stop);
  Result<Fd> complete_metadata(const Object& object, const std::string& digest, std::stop_token stop,
                               const Report& report);
  Result<std::shared_ptr<Mount>> take_down(const std::string& dir, bool lazy);
  Result<Fd> open_device(Device& device, front::MarkedFiles* marks);
  Result<ErofsMount> make_erofs(const ErofsSource& source, const Mount& mount, bool ours, front::MarkedFiles* marks);
  void deny_marked(const Mount& mount);
  Result<std::string> resolve(const std::string& dir);
  Result<std::shared_ptr<Mount>> latest(const std::string& fsid);
  void drop_vanished();

  const MountsOptions options_;
  Objects& objects_;
  Pins& pins_;
  front::BlobFs& blobs_;
  StoredMarks& marks_;
  std::string boot_id_;

  std::mutex mutex_;
  bool closed_ = false;
  std::map<std::string, std::shared_ptr<Mount>> mounts_;  // by directory; shared with a `stat` under way

  std::mutex blob_mutex_;
  std::map<ObjectKey, std::weak_ptr<BlobFile>> blob_files_;
  // Starts where no predecessor that was alive in this boot has been.
  uint64_t blob_sequence_ = static_cast<uint64_t>(Clock::system().now().time_since_epoch().count());
};

}  // namespace hydrant::daemon
