#include "front/fanotify/marked_files.h"

#include <sys/stat.h>

#include <cerrno>

#include "base/file.h"
#include "base/log.h"
#include "front/fanotify/marked_server.h"

namespace hydrant::front {

namespace {

Result<> check(const MarkedFilesOptions& options) {
  if (options.read_limit < std::chrono::milliseconds(1) || options.read_limit > std::chrono::hours(1))
    return fail(Code::kInvalid, "the read limit must be 1 ms .. 1 h");
  return {};
}

}  // namespace

void HeldMarks::read_pending() {
  auto record = EventJournal::open(events.duplicate());
  auto read = record ? record->read() : fail(record.error());
  if (!read) return;  // take_over() says so
  for (const proto::HandedEvent& event : *read) pending.insert(static_cast<int>(event.number));
  for (Fd* each : {&group, &journal, &this->events}) each->keep_off(pending);
}

void HeldMarks::reserve() {
  if (pending.empty()) return;
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  null.keep_off(pending);
  for (int number : pending) {
    Fd taken(::fcntl(null.get(), F_DUPFD_CLOEXEC, number));
    if (taken.get() == number) reserved.insert(taken.release());
  }
}

MarkedFiles::MarkedFiles(std::shared_ptr<Server> server) : server_(std::move(server)) {}

Result<std::unique_ptr<MarkedFiles>> MarkedFiles::create(MarkedFilesOptions options) {
  HYDRANT_TRY_VOID(check(options));
  HYDRANT_TRY(FanGroup group, FanGroup::create());
  HYDRANT_TRY(BlobJournal journal, BlobJournal::create());
  HYDRANT_TRY(EventJournal events, EventJournal::create());
  auto server = std::make_shared<Server>(std::move(group), std::move(journal), std::move(events), options.read_limit);
  HYDRANT_TRY_VOID(server->start());
  return std::unique_ptr<MarkedFiles>(new MarkedFiles(std::move(server)));
}

Result<std::unique_ptr<MarkedFiles>> MarkedFiles::take_over(MarkedFilesOptions options, HeldMarks held,
                                                            const CookieOf& cookie_of) {
  HYDRANT_TRY_VOID(check(options));
  FanGroup group(std::move(held.group));
  auto old_events = EventJournal::open(std::move(held.events));
  auto read = old_events ? old_events->read() : fail(old_events.error());
  if (!read) log::error("fanotify-events-unreadable", {{"why", read.error().what}});
  auto events = read ? std::move(old_events) : EventJournal::create();
  if (!events) return fail(std::move(events).error());
  const auto pending = read ? std::move(*read) : std::vector<proto::HandedEvent>();
  // What else the dead one had in hand goes first: nobody waits for its answers.
  if (const size_t denied = group.deny_read_ones(held.reserved); denied > 0)
    log::warn("fanotify-reads-denied", {{"reads", denied}, {"recorded", pending.size() - held.reserved.size()}});
  auto old = BlobJournal::open(std::move(held.journal));
  auto handover = old ? old->read() : fail(old.error());
  if (!handover) log::error("fanotify-record-unreadable", {{"why", handover.error().what}});
  auto journal = handover ? std::move(old) : BlobJournal::create();
  if (!journal) return fail(std::move(journal).error());
  auto server = std::make_shared<Server>(std::move(group), std::move(*journal), std::move(*events), options.read_limit);
  const auto blobs = handover ? std::move(handover->blobs) : std::vector<proto::HandedBlob>();
  for (const proto::HandedBlob& blob : blobs) {
    if (auto cookie = cookie_of(blob))
      server->adopt(blob, std::move(*cookie));
    else
      log::error("fanotify-file-not-taken-over", {{"id", blob.id}, {"why", cookie.error().what}});
  }
  for (const proto::HandedEvent& event : pending)
    if (held.reserved.contains(static_cast<int>(event.number))) server->go_on(event);
  HYDRANT_TRY_VOID(server->start());
  return std::unique_ptr<MarkedFiles>(new MarkedFiles(std::move(server)));
}

HeldMarks MarkedFiles::held() const {
  return {.group = server_->group().fd().duplicate(),
          .journal = server_->journal().memory().duplicate(),
          .events = server_->events().memory().duplicate()};
}

void MarkedFiles::stop() { server_->stop(); }

MarkedFiles::~MarkedFiles() {
  server_->stop();
  server_->finish();
}

Result<std::shared_ptr<MarkedFiles::File>> MarkedFiles::mark(std::shared_ptr<cachefiles::Cookie> cookie, const Fd& file,
                                                             const BlobOrigin& origin) {
  struct stat status {};
  if (::fstat(file.get(), &status)) return fail_sys(errno, "stat of a backing file");
  auto fresh = std::make_shared<File>();
  fresh->origin = origin;
  fresh->blob = std::make_shared<MarkedBlob>();
  fresh->blob->key = {status.st_dev, status.st_ino};
  fresh->blob->size = cookie->size();
  fresh->blob->touches = std::make_unique<Touches>(cookie->size(), Clock::system().now());
  // A file that is shorter than its image expects would be read as zeros past its end.
  if (status.st_size % 4096 != 0 || static_cast<uint64_t>(status.st_size) < cookie->size())
    return fail(Code::kIo, "the backing file of " + origin.id + " is too short to be mounted");
  fresh->blob->cookie = std::move(cookie);
  HYDRANT_TRY(auto kept, server_->mark(std::move(fresh), file));
  // What is opened from now on must ask; the kernel decides that at the open.
  HYDRANT_TRY(Fd again, open_file("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY));
  if (!server_->asks(again, 0))
    return fail(Code::kUnsupported, "fanotify tells nothing of reads of " + origin.id + ": use --front fuse");
  return kept;
}

std::shared_ptr<MarkedFiles::File> MarkedFiles::find(const BlobOrigin& origin) const { return server_->find(origin); }

Result<> MarkedFiles::deny(const Fd& file) { return server_->group().mark(file); }

Result<> MarkedFiles::used_by(const std::shared_ptr<File>& file, const std::string& super) {
  return server_->use(file, super);
}

std::vector<Touch> MarkedFiles::touches(const File& file) {
  return file.blob->touches ? file.blob->touches->list() : std::vector<Touch>();
}

bool MarkedFiles::marked(const File& file) { return file.marked.load(); }

bool MarkedFiles::asks(const Fd& file, uint64_t offset) { return server_->asks(file, offset); }

void MarkedFiles::collect() { server_->collect(); }

bool MarkedFiles::in_use() const { return server_->in_use(); }

MarkedFilesStat MarkedFiles::stat() const { return server_->stat(); }

}  // namespace hydrant::front
