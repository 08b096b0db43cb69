// The mounts: made, listed, taken down. What `mount -t erofs -o fsid=…,device=…,domain_id=…` was to the kernel.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/mount_record.h"
#include "daemon/objects.h"
#include "front/fuse/blob_fs.h"
#include "proto/admin.h"

namespace hydrant::daemon {

struct MountsOptions {
  std::string records;                                // directory, exists
  Duration open_limit = std::chrono::seconds(30);     // for the user daemon's answer to an OPEN
  Duration supply_limit = std::chrono::seconds(120);  // for each 4 MiB of metadata
};

// Thread-safe. Mounts are made in parallel; the table's lock is never held across a wait or a mount.
class Mounts {
 public:
  using Report = std::function<void(const proto::Progress&)>;

  // Takes up the records of a dead predecessor: those whose mount still stands are listed as dead until they are
  // unmounted, the others are deleted. Nothing else is touched.
  static Result<std::unique_ptr<Mounts>> create(MountsOptions options, Objects& objects, front::BlobFs& blobs);

  // All or nothing: a failure leaves neither mount nor record. Errors as proto::MountRequest says.
  Result<proto::MountReply> mount(const proto::MountRequest& request, std::stop_token stop, const Report& report);
  Result<> umount(const std::string& dir, bool lazy);
  proto::ListReply list();
  Result<proto::StatMountReply> stat(const std::string& dir);

  // Refuses new mounts and unmounts everything, lazily what is busy.
  void close();

 private:
  class BlobFile;
  struct Device {
    std::shared_ptr<Object> object;
    std::shared_ptr<BlobFile> blob;  // null: EROFS reads the backing file itself. Shared by the mounts that use it
  };
  struct Mount {
    MountRecord record;
    std::shared_ptr<Object> metadata;  // null when dead
    std::vector<Device> devices;
    bool dead = false;   // made by a predecessor that died
    bool ready = false;  // false while somebody makes it or takes it down
  };
  class Reservation;

  Mounts(MountsOptions options, Objects& objects, front::BlobFs& blobs)
      : options_(std::move(options)), objects_(objects), blobs_(blobs) {}

  Result<> adopt_records();
  Result<Mount> prepare(const proto::MountRequest& request, std::stop_token stop);
  Result<Fd> complete_metadata(const Object& object, const std::string& digest, std::stop_token stop,
                               const Report& report);
  Result<Fd> open_device(Device& device);
  Result<std::string> resolve(const std::string& dir);
  void drop_vanished();

  const MountsOptions options_;
  Objects& objects_;
  front::BlobFs& blobs_;
  std::string boot_id_;

  std::mutex mutex_;
  bool closed_ = false;
  std::map<std::string, std::shared_ptr<Mount>> mounts_;  // by directory; shared with a `stat` under way

  std::mutex blob_mutex_;
  std::map<ObjectKey, std::weak_ptr<BlobFile>> blob_files_;
  uint64_t blob_sequence_ = 0;
};

}  // namespace hydrant::daemon
