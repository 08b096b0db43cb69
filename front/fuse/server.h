// The loop over /dev/fuse: reads requests of the kernel, answers them.
#pragma once

#include <linux/fuse.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/gate.h"
#include "front/fuse/blob_fs.h"
#include "front/fuse/blob_table.h"
#include "front/fuse/pending_reads.h"
#include "front/fuse/slow_failures.h"

namespace hydrant::front {

inline constexpr size_t kMaxRead = 1 << 20;

// All threads read one and the same descriptor: the kernel then keeps what was read but not answered with that open
// file, so a keeper that holds it can let a successor ask for it again. (A clone's requests die with the clone.)
// Thread-safe.
class BlobFs::Server : public std::enable_shared_from_this<BlobFs::Server> {
 public:
  Server(Fd device, Duration read_limit);
  ~Server();

  void start(unsigned threads);
  // Fails what waits, ends the threads, closes the device: every reader from now on gets an error. Called once, by the
  // owner; callbacks that the engine still owes find nothing to do afterwards.
  void stop();

  // Makes the kernel send everything again that a predecessor read from this device and did not answer. Before `start`
  // and after the table is filled. kUnsupported before Linux 6.9.
  Result<> ask_again();

  const Fd& device() const { return device_; }
  BlobTable& table() { return table_; }
  // Makes the kernel look the name up again.
  void forget_name(const std::string& name);
  BlobFsStat stat() const;

  // Set before start.
  Fd mount;  // O_PATH, of the root of the file system
  std::string mount_point;

 private:
  struct Worker;
  struct Counters {  // relaxed: read for people only
    std::atomic<uint64_t> hits{0}, misses{0}, errors{0}, too_slow{0}, interrupted{0}, bytes{0};
  };

  void run(Worker& worker);
  void watch_limits();
  void dispatch(const fuse_in_header& header, Bytes body, MutableBytes scratch);

  void init(const fuse_in_header& header, Bytes body);
  void lookup(const fuse_in_header& header, Bytes body);
  void getattr(const fuse_in_header& header);
  void open(const fuse_in_header& header, Bytes body);
  void read_dir(const fuse_in_header& header, Bytes body);
  void statfs(const fuse_in_header& header);
  void forget(Bytes body, bool batch, uint64_t node);
  void interrupt(Bytes body);

  void read(const fuse_in_header& header, Bytes body, MutableBytes scratch);
  void miss(uint64_t unique, Blob& blob, ByteRange range, ByteRange wanted);
  void supplied(uint64_t unique, int status);
  void fail(const PendingRead& read);
  // Answers with bytes of the backing file; they must be present. `scratch` holds at least the range.
  // Nothing is answered when the bytes have gone since they were found present.
  enum class Outcome { kGiven, kFailed, kGone };
  Outcome answer_read(uint64_t unique, const Blob& blob, ByteRange range, MutableBytes scratch);
  void count_answer(Outcome outcome, std::atomic<uint64_t>& when_given);

  void reply(uint64_t unique, int error, Bytes payload = {});
  template <class T>
  void reply_with(uint64_t unique, const T& value) {
    reply(unique, 0, Bytes(reinterpret_cast<const std::byte*>(&value), sizeof value));
  }

  // Scratch of answers that other threads give: at most kSpareBuffers are kept.
  std::unique_ptr<std::byte[]> take_buffer();
  void give_back(std::unique_ptr<std::byte[]> buffer);

  Fd device_;
  Gate answers_;  // callbacks are inside while they use the device
  BlobTable table_;
  PendingReads pending_;
  SlowFailures slow_failures_;
  Counters counters_;
  std::atomic<bool> stopping_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
  std::jthread limits_;
  std::mutex buffers_mutex_;
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
};

}  // namespace hydrant::front
