/* A program written for the kernel's /dev/cachefiles, and for nothing else: it makes the call that a line of its standard
 * input names and prints what came of it: the result, or the errno as a negative number, then what was read. The preload
 * library and the engine behind it are none of its business. Numbers of descriptors are its own.
 *
 * Bytes are written as text, as *COUNT (that many 'x'), as "bad" (an address that is not mapped), or as "edge": the last
 * four bytes of a page, with nothing mapped behind it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

#define MOST 64
static char* word[MOST];
static int words;
static char line[1 << 16];
static char memory[1 << 20];
static const char* self;

static long number(int at) { return at < words ? strtol(word[at], NULL, 0) : 0; }
static int is(int at, const char* text) { return at < words && strcmp(word[at], text) == 0; }

static void say(long result) {
  printf("%ld\n", result < 0 ? -(long)errno : result);
  fflush(stdout);
}

static void say_bytes(long result, const unsigned char* bytes) {
  if (result < 0) return say(result);
  printf("%ld ", result);
  for (long i = 0; i < result; ++i) printf("%02x", bytes[i]);
  printf("\n");
  fflush(stdout);
}

static char* edge(void) {
  static char* page;
  if (!page) {
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
  }
  return page + 4096 - 4;
}

static void* bad(void) { return (void*)0x10; }

/* The rest of the line from word `at`, spaces kept; or what the name stands for. */
static const void* bytes_at(int at, size_t* size) {
  if (at >= words) return *size = 0, "";
  if (word[at][0] == '*') {
    static char* big;
    static size_t most;
    *size = strtoul(word[at] + 1, NULL, 0);
    if (*size > most) big = realloc(big, most = *size);
    memset(big, 'x', *size);
    return big;
  }
  if (is(at, "bad")) return *size = 16, bad();
  if (is(at, "edge")) return *size = 16, edge();
  char* text = word[at];
  size_t length = strlen(text);
  for (int i = at + 1; i < words; ++i) {
    text[length] = ' ';
    length += 1 + strlen(word[i]);
  }
  /* \n and \0, so that a line can hold them. */
  size_t to = 0;
  for (size_t from = 0; from < length; ++from, ++to) {
    text[to] = text[from];
    if (text[from] == '\\' && from + 1 < length) {
      ++from;
      text[to] = text[from] == 'n' ? '\n' : text[from] == 's' ? ' ' : '\0';
    }
  }
  *size = to;
  return text;
}

static void do_open(void) {
  int flags = (int)number(2);
  if (is(1, "open")) return say(open("/dev/cachefiles", flags, 0600));
  if (is(1, "open64")) return say(open64("/dev/cachefiles", flags, 0600));
  if (is(1, "openat")) return say(openat(AT_FDCWD, "/dev/cachefiles", flags, 0600));
  if (is(1, "openat64")) return say(openat64(-7, "/dev/cachefiles", flags, 0600));
  if (is(1, "creat")) return say(creat("/dev/cachefiles", 0600));
  if (is(1, "fortified")) return say(open("/dev/cachefiles", flags)); /* becomes __open_2 */
  if (is(1, "fortifiedat")) return say(openat(AT_FDCWD, "/dev/cachefiles", flags));
  if (is(1, "other")) return say(open("/dev/null", flags));
  abort();
}

/* write HOW FD BYTES; pwrite… HOW FD OFFSET BYTES */
static void do_write(void) {
  int fd = (int)number(2);
  int positional = word[1][0] == 'p';
  long at = positional ? number(3) : 0;
  size_t size;
  const char* bytes = bytes_at(positional ? 4 : 3, &size);
  struct iovec parts[3] = {{(void*)bytes, size / 2}, {(void*)bytes, 0}, {(void*)(bytes + size / 2), size - size / 2}};
  if (is(1, "write")) return say(write(fd, bytes, size));
  if (is(1, "writev")) return say(writev(fd, parts, 3));
  if (is(1, "pwrite")) return say(pwrite(fd, bytes, size, at));
  if (is(1, "pwrite64")) return say(pwrite64(fd, bytes, size, at));
  if (is(1, "pwritev")) return say(pwritev(fd, parts, 3, at));
  if (is(1, "pwritev64")) return say(pwritev64(fd, parts, 3, at));
  if (is(1, "pwritev2")) return say(pwritev2(fd, parts, 3, at, 0));
  if (is(1, "dprintf")) return say(dprintf(fd, "%s", bytes));
  abort();
}

/* read HOW FD SIZE */
static void do_read(void) {
  int fd = (int)number(2);
  size_t size = (size_t)number(3);
  unsigned char* out = (unsigned char*)memory;
  struct iovec parts[2] = {{out, size / 2}, {out + size / 2, size - size / 2}};
  if (is(1, "read")) {
    volatile size_t most = size;
    return say_bytes(read(fd, out, most), out);
  }
  if (is(1, "fortified")) {
    char small[8192];
    volatile size_t most = size; /* unknown to the compiler, so that it becomes __read_chk */
    ssize_t got = read(fd, small, most);
    return say_bytes(got, (unsigned char*)small);
  }
  if (is(1, "readv")) return say_bytes(readv(fd, parts, 2), out);
  if (is(1, "pread")) return say_bytes(pread(fd, out, size, number(4)), out);
  if (is(1, "pread64")) return say_bytes(pread64(fd, out, size, number(4)), out);
  if (is(1, "preadv")) return say_bytes(preadv(fd, parts, 2, number(4)), out);
  if (is(1, "bad")) return say(read(fd, bad(), size));
  if (is(1, "edge")) return say(read(fd, edge(), size));
  abort();
}

static void on_signal(int signal) { (void)signal; }

/* poll HOW TIMEOUT_MS FD EVENTS [FD EVENTS]…: the result, then each revents */
static void do_poll(void) {
  struct pollfd fds[MOST];
  int count = 0;
  for (int at = 3; at + 1 < words; at += 2)
    fds[count++] = (struct pollfd){(int)number(at), (short)number(at + 1), 0x7f};
  int timeout = (int)number(2);
  struct timespec limit = {timeout / 1000, timeout % 1000 * 1000000L};
  volatile nfds_t used = (nfds_t)count;
  int result;
  if (is(1, "poll")) {
    result = poll(fds, used, timeout); /* fortified: __poll_chk */
  } else if (is(1, "ppoll")) {
    result = ppoll(fds, used, timeout < 0 ? NULL : &limit, NULL);
  } else {
    /* "masked": SIGUSR1 is pending, blocked, and let in by the call alone */
    sigset_t blocked, none;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    result = ppoll(fds, used, timeout < 0 ? NULL : &limit, &none);
  }
  if (result < 0) return say(result);
  printf("%d", result);
  for (int i = 0; i < count; ++i) printf(" %x", (unsigned)fds[i].revents & 0xffff);
  printf("\n");
  fflush(stdout);
}

/* select HOW TIMEOUT_MS FD…: the result, then for each the letters of the sets it is in */
static void do_select(void) {
  fd_set in, out, except;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_ZERO(&except);
  int highest = 0;
  for (int at = 3; at < words; ++at) {
    int fd = (int)number(at);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(fd, &except);
    if (fd > highest) highest = fd;
  }
  int timeout = (int)number(2);
  struct timeval limit = {timeout / 1000, timeout % 1000 * 1000};
  struct timespec exact = {timeout / 1000, timeout % 1000 * 1000000L};
  int result = is(1, "select") ? select(highest + 1, &in, &out, &except, timeout < 0 ? NULL : &limit)
                               : pselect(highest + 1, &in, &out, &except, timeout < 0 ? NULL : &exact, NULL);
  if (result < 0) return say(result);
  printf("%d", result);
  for (int at = 3; at < words; ++at) {
    int fd = (int)number(at);
    printf(" %s%s%s-", FD_ISSET(fd, &in) ? "i" : "", FD_ISSET(fd, &out) ? "o" : "", FD_ISSET(fd, &except) ? "e" : "");
  }
  printf("\n");
  fflush(stdout);
}

/* epoll create | add EP FD EVENTS | mod EP FD EVENTS | del EP FD | wait EP TIMEOUT */
static void do_epoll(void) {
  struct epoll_event event = {(uint32_t)number(4), {.u64 = (uint64_t)number(3) + 1000}};
  if (is(1, "create")) return say(epoll_create1(0));
  if (is(1, "add")) return say(epoll_ctl((int)number(2), EPOLL_CTL_ADD, (int)number(3), &event));
  if (is(1, "mod")) return say(epoll_ctl((int)number(2), EPOLL_CTL_MOD, (int)number(3), &event));
  if (is(1, "del")) return say(epoll_ctl((int)number(2), EPOLL_CTL_DEL, (int)number(3), NULL));
  struct epoll_event events[8];
  int got = epoll_wait((int)number(2), events, 8, (int)number(3));
  if (got < 0) return say(got);
  printf("%d", got);
  for (int i = 0; i < got; ++i) printf(" %lu:%x", (unsigned long)events[i].data.u64, events[i].events);
  printf("\n");
  fflush(stdout);
}

static void run(void);

/* beside LINE…: in a child that nobody waits for */
static void do_beside(void) {
  if (fork()) return;
  memmove(word, word + 1, sizeof(char*) * (size_t)--words);
  run();
  fflush(stdout);
  _exit(0);
}

/* fork LINE…: the rest of the line in a child; the parent says the same again only if the child failed */
static void do_fork(int kind) {
  if (kind == 'p') {
    char* arguments[] = {(char*)self, "after-exec", NULL};
    char* empty[] = {NULL};
    pid_t child;
    int err = posix_spawn(&child, self, NULL, NULL, arguments, empty);
    if (err) {
      errno = err;
      return say(-1);
    }
    waitpid(child, NULL, 0);
    return;
  }
  pid_t child = kind == 'v' ? vfork() : fork();
  if (child == 0) {
    memmove(word, word + 1, sizeof(char*) * (size_t)--words);
    run();
    fflush(stdout);
    _exit(0);
  }
  waitpid(child, NULL, 0);
}

static void do_exec(void) {
  char* arguments[] = {(char*)self, NULL};
  char* empty[] = {NULL};
  if (is(1, "execve")) execve(self, arguments, empty);
  if (is(1, "execv")) {
    clearenv();
    execv(self, arguments);
  }
  if (is(1, "execl")) execl(self, self, (char*)NULL);
  if (is(1, "execle")) execle(self, self, (char*)NULL, empty);
  if (is(1, "execvp")) execvp(self, arguments);
  if (is(1, "execlp")) execlp(self, self, (char*)NULL);
  if (is(1, "execvpe")) execvpe(self, arguments, empty);
  if (is(1, "fexecve")) fexecve(open(self, O_RDONLY), arguments, empty);
  say(-1);
}

/* pass FD: through a socket to ourselves */
static void do_pass(void) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) return say(-1);
  int fd = (int)number(1);
  char byte = 0, control[CMSG_SPACE(sizeof fd)];
  memset(control, 0, sizeof control);
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* rights = CMSG_FIRSTHDR(&message);
  *rights = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  if (sendmsg(ends[0], &message, 0) < 0 || recvmsg(ends[1], &message, 0) < 0) return say(-1);
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  close(ends[0]);
  close(ends[1]);
  say(fd);
}

static void do_stat(void) {
  struct stat status;
  struct statx more;
  int result;
  if (is(1, "fstat")) {
    result = fstat((int)number(2), &status);
  } else if (is(1, "stat")) {
    result = stat("/dev/cachefiles", &status);
  } else if (is(1, "lstat")) {
    result = lstat("/dev/cachefiles", &status);
  } else if (is(1, "fstatat")) {
    result = fstatat((int)number(2), "", &status, AT_EMPTY_PATH);
  } else {
    result = statx((int)number(2), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &more);
    status.st_mode = more.stx_mode;
  }
  if (result) return say(-1);
  printf("%o\n", status.st_mode);
  fflush(stdout);
}

/* threads FD COUNT ROUNDS COMMAND: each thread writes the command; how many writes succeeded */
struct job {
  int fd;
  long rounds;
  const char* text;
  long good;
};
static void* work(void* at) {
  struct job* job = at;
  for (long i = 0; i < job->rounds; ++i) job->good += write(job->fd, job->text, strlen(job->text)) == (ssize_t)strlen(job->text);
  return NULL;
}
static void do_threads(void) {
  enum { kMost = 16 };
  pthread_t threads[kMost];
  struct job jobs[kMost];
  size_t size;
  int count = (int)number(2);
  char text[256] = {0};
  int fd = (int)number(1);
  long rounds = number(3);
  const void* bytes = bytes_at(4, &size);
  memcpy(text, bytes, size);
  for (int i = 0; i < count; ++i) {
    jobs[i] = (struct job){fd, rounds, text, 0};
    pthread_create(&threads[i], NULL, work, &jobs[i]);
  }
  long good = 0;
  for (int i = 0; i < count; ++i) {
    pthread_join(threads[i], NULL);
    good += jobs[i].good;
  }
  say(good);
}

static void run(void) {
  if (is(0, "open")) return do_open();
  if (is(0, "write")) return do_write();
  if (is(0, "read")) return do_read();
  if (is(0, "poll")) return do_poll();
  if (is(0, "select")) return do_select();
  if (is(0, "epoll")) return do_epoll();
  if (is(0, "beside")) return do_beside();
  if (is(0, "fork")) return do_fork('f');
  if (is(0, "vfork")) return do_fork('v');
  if (is(0, "spawn")) return do_fork('p');
  if (is(0, "exec")) return do_exec();
  if (is(0, "pass")) return do_pass();
  if (is(0, "stat")) return do_stat();
  if (is(0, "threads")) return do_threads();
  if (is(0, "access")) return say(access("/dev/cachefiles", (int)number(1)));
  if (is(0, "close")) return say(close((int)number(1)));
  if (is(0, "close_range")) return say(close_range((unsigned)number(1), (unsigned)number(2), (int)number(3)));
  if (is(0, "closefrom")) return closefrom((int)number(1)), say(0);
  if (is(0, "dup")) return say(dup((int)number(1)));
  if (is(0, "dup2")) return say(dup2((int)number(1), (int)number(2)));
  if (is(0, "dup3")) return say(dup3((int)number(1), (int)number(2), (int)number(3)));
  if (is(0, "fcntl")) return say(fcntl((int)number(1), (int)number(2), number(3)));
  if (is(0, "ioctl")) return say(ioctl((int)number(1), (unsigned long)number(2), number(3)));
  if (is(0, "lseek")) return say(lseek((int)number(1), number(2), (int)number(3)));
  if (is(0, "lseek64")) return say(lseek64((int)number(1), number(2), (int)number(3)));
  if (is(0, "sendfile")) return say(sendfile((int)number(1), (int)number(2), NULL, 4096));
  if (is(0, "splice")) return say(splice((int)number(1), NULL, (int)number(2), NULL, 4096, 0));
  if (is(0, "copy")) return say(copy_file_range((int)number(1), NULL, (int)number(2), NULL, 4096, 0));
  if (is(0, "chdir")) return say(chdir(word[1]));
  if (is(0, "full")) { /* leaves N numbers free */
    long room = number(1);
    struct rlimit limit = {64 , 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    int last[64], used = 0;
    while (used < 64 && (last[used] = open("/dev/null", O_RDONLY)) >= 0) ++used;
    while (room-- > 0) close(last[--used]);
    return say(used);
  }
  if (is(0, "pipe")) {
    int ends[2];
    if (pipe(ends)) return say(-1);
    printf("%d %d\n", ends[0], ends[1]);
    fflush(stdout);
    return;
  }
  if (is(0, "put")) return say(write((int)number(1), "y", 1));
  printf("what?\n");
  fflush(stdout);
}

int main(int argc, char** argv) {
  static char path[4096];
  ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
  self = size > 0 ? path : argv[0];
  (void)argc;
  for (;;) {
    /* One byte at a time: what an exec leaves unread is its successor's. */
    size_t at = 0;
    ssize_t got;
    while ((got = read(0, line + at, 1)) == 1 && line[at] != '\n') ++at;
    if (got <= 0) return 0;
    line[at] = 0;
    words = 0;
    for (char* next = strtok(line, " "); next && words < MOST; next = strtok(NULL, " ")) word[words++] = next;
    if (words) run();
    if (argc > 1) return 0; /* spawned for one line */
  }
}
