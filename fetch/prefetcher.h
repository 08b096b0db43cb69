// Learns what starts of an image read, and fetches it ahead of the next one's readers.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fetch/catalogue.h"
#include "fetch/fill_queue.h"
#include "fetch/objects.h"
#include "fetch/origins.h"
#include "fetch/paths.h"
#include "image/file_table.h"
#include "proto/admin.h"
#include "proto/prefetch_list.h"

namespace hydrant::fetch {

// What hydrantd knows of the mounts of images. Thread-safe.
class MountedImages {
 public:
  explicit MountedImages(std::string hydrantd_socket) : socket_(std::move(hydrantd_socket)) {}
  Result<proto::TouchedReply> touched(const std::string& fsid, Deadline deadline) const;
  Result<std::vector<proto::StatMountReply>> all(Deadline deadline) const;
  // Has its devices opened again.
  Result<> reopen(const std::string& fsid, Deadline deadline) const;
  // Has what was read of a device forgotten. As of proto::WithdrawRequest.
  Result<> withdraw(const std::string& device, Deadline deadline) const;

 private:
  const std::string socket_;
};

// Thread-safe.
class Prefetcher {
 public:
  // All but `paths` outlive the prefetcher, and the queue is stopped before it goes.
  Prefetcher(Paths paths, Catalogue& catalogue, Origins& origins, Objects& objects, FillQueue& queue,
             MountedImages mounted)
      : paths_(std::move(paths)),
        catalogue_(catalogue),
        origins_(origins),
        objects_(objects),
        queue_(queue),
        mounted_(std::move(mounted)) {}

  // The image is about to be mounted: what its list names is fetched as soon as its objects are open, and what this
  // start reads is learned; with `background` the rest of the image follows when nobody wants anything else. Returns at
  // once.
  void expect(const std::string& fsid, bool background);
  // Goes on with what was begun in the background for the mounts that stand: who did it has died, or has lost its
  // objects with hydrantd. Returns at once.
  void resume();

  // As proto::LearnRequest and proto::PrefetchRequest say.
  Result<proto::PrefetchReply> learn(const std::string& fsid);
  Result<proto::PrefetchReply> prefetch(const std::string& fsid, const std::vector<std::string>& paths);

 private:
  struct Layer;
  struct Image;
  // A start that is in the list already, and the list without it: the same start seen again later tells more.
  struct Learned {
    int64_t mounted_at = 0;
    proto::PrefetchList before;
  };

  Result<Image> image(const std::string& fsid);
  Result<Image> image(const ImageRow& row);
  void resume_at(Instant when, unsigned tries);
  Result<image::FileTable> file_table(const Layer& layer);
  Result<proto::PrefetchList> list(const Image& image);
  Result<proto::PrefetchReply> replay(const Image& image);
  Result<proto::PrefetchReply> fetch_paths(const Image& image, const std::vector<std::string>& paths);
  void learn_later(const std::string& fsid, Duration after);

  const Paths paths_;
  Catalogue& catalogue_;
  Origins& origins_;
  Objects& objects_;
  FillQueue& queue_;
  const MountedImages mounted_;
  std::mutex learning_;                     // one at a time: lists are read, changed and written; guards learned_
  std::map<std::string, Learned> learned_;  // by fsid
};

}  // namespace hydrant::fetch
