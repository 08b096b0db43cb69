#include "daemon/page_cache.h"

#include <fcntl.h>
#include <fts.h>

#include <cerrno>
#include <memory>

#include "base/fd.h"
#include "base/free_with.h"

namespace hydrant::daemon {

Result<> forget_pages(const std::string& top) {
  char* roots[] = {const_cast<char*>(top.c_str()), nullptr};
  std::unique_ptr<FTS, FreeWith<fts_close>> walk(::fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, nullptr));
  if (!walk) return fail_sys(errno, top);
  errno = 0;
  while (FTSENT* entry = ::fts_read(walk.get())) {
    // Neither devices nor pipes are FTS_F, and nobody can put one in its place: the file system cannot be written.
    if (entry->fts_info == FTS_F) {
      Fd file(::open(entry->fts_accpath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOATIME));
      if (file) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    errno = 0;
  }
  return errno == 0 ? Result<>() : fail_sys(errno, top);
}

}  // namespace hydrant::daemon
