// The loop over a fanotify group: reads its events, answers them.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/gate.h"
#include "front/fanotify/event_journal.h"
#include "front/fanotify/fan_group.h"
#include "front/fanotify/marked_files.h"
#include "front/fuse/blob_journal.h"
#include "front/fuse/pending_reads.h"
#include "front/fuse/slow_failures.h"

namespace hydrant::front {

struct FileKey {
  uint64_t device = 0, inode = 0;
  auto operator<=>(const FileKey&) const = default;
};

// What reads have in hand while they wait: the cookie, its size, its touches.
struct MarkedBlob : Blob {
  FileKey key;
  // Whether the kernel may read `range` of the file. A cookie whose file was replaced vouches for another one's bytes.
  bool vouches(ByteRange range) const { return (range.empty() || cookie->present(range)) && is_its_file(); }
  bool is_its_file() const { return cookie->is_backing_file(key.device, key.inode); }
};

class MarkedFiles::File {
 public:
  BlobOrigin origin;
  std::shared_ptr<MarkedBlob> blob;
  std::atomic<bool> marked{true};

  struct Use {
    std::string super;
    uint64_t node;  // of the journal
  };
  std::vector<Use> uses;  // the server's lock
};

// One thread reads events and never touches the disk, so it can answer for the engine's own threads; what is missing is
// asked for by others, because asking may hash what lies on the disk. Thread-safe.
class MarkedFiles::Server : public std::enable_shared_from_this<MarkedFiles::Server> {
 public:
  Server(FanGroup group, BlobJournal journal, EventJournal events, Duration read_limit);
  ~Server();

  Result<> start();
  // Denies what waits, and whatever comes but for our own threads. Calls no cookie from here on.
  void stop();
  // Answers nothing any more. After stop().
  void finish();

  FanGroup& group() { return group_; }
  const BlobJournal& journal() const { return journal_; }
  const EventJournal& events() const { return events_; }

  // Before start(): what a predecessor made, and what it had read. The event's number is reserved.
  void go_on(const proto::HandedEvent& event);
  void adopt(const proto::HandedBlob& handed, std::shared_ptr<cachefiles::Cookie> cookie);
  // Guards it, or who is there with its key already.
  Result<std::shared_ptr<File>> mark(std::shared_ptr<File> file, const Fd& fd);
  std::shared_ptr<File> find(const BlobOrigin& origin) const;
  Result<> use(const std::shared_ptr<File>& file, const std::string& super);
  bool asks(const Fd& file, uint64_t offset);
  void collect();
  bool in_use() const;
  MarkedFilesStat stat() const;

 private:
  struct Miss {
    int event;
    std::shared_ptr<MarkedBlob> blob;
    ByteRange wanted;
  };

  void run();
  void fill();
  void watch_limits();
  void take(const FanEvent& event, const std::optional<FileKey>& key);
  std::shared_ptr<File> file_of(const std::optional<FileKey>& key) const;
  void queue(Miss miss);
  void ask(Miss miss);
  void supplied(uint64_t unique, int status);
  void answer(int event, bool allow);  // and closes it
  bool tested_by(int thread);
  std::vector<std::shared_ptr<File>> files() const;

  FanGroup group_;
  BlobJournal journal_;
  EventJournal events_;
  std::atomic<bool> stopping_{false};
  Gate answers_;  // callbacks are inside while they use the group
  Fd stop_event_;
  PendingReads pending_;  // by the event's descriptor and a number of its own: a descriptor comes again (event_of)
  std::atomic<uint32_t> asked_{0};  // relaxed: only to be different
  SlowFailures slow_failures_;
  std::atomic<uint64_t> hits_{0}, misses_{0}, errors_{0}, too_slow_{0};  // relaxed: read for people only

  std::mutex marking_;        // so that no mark goes that somebody has just set; first of the two
  mutable std::mutex mutex_;  // not held across the disk, nor the engine
  std::map<FileKey, std::shared_ptr<File>> files_;
  std::set<uint64_t> nodes_;        // of the journal, in use
  std::map<int, bool> testers_;     // threads that look whether events come: whether one came
  std::atomic<size_t> testing_{0};  // their number; read without the lock

  uint64_t unknown_ = 0;  // events of files that are not ours; the reading thread's

  mutable std::mutex queue_mutex_;
  std::condition_variable queued_;
  std::deque<Miss> queue_;  // as many as there are readers: each is a descriptor of ours

  std::jthread reader_, limits_;
  std::array<std::jthread, 2> fillers_;
};

}  // namespace hydrant::front
