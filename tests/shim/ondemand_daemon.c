/* An on-demand user daemon as it was written for the kernel: one thread, poll, and the structures of the kernel's
 * documentation. It serves one file, whatever the object is called, and ends when that many objects were closed.
 * Arguments: the cache's directory, the file, the number of objects. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct message {
  uint32_t msg_id, opcode, len, object_id;
  uint8_t data[];
};
struct open_request {
  uint32_t volume_key_size, cookie_key_size, fd, flags;
  uint8_t data[];
};
struct read_request {
  uint64_t off, len;
};
enum { OPEN, CLOSE, READ };
#define READ_COMPLETE _IOW(0x98, 1, int)

static struct {
  uint32_t id;
  int fd;
} objects[64];
static int closed;

static void die(const char* what) {
  fprintf(stderr, "ondemand_daemon: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void command(int device, const char* text) {
  if (write(device, text, strlen(text)) != (ssize_t)strlen(text)) die(text);
}

static int object(uint32_t id) {
  for (int i = 0; i < 64; ++i)
    if (objects[i].id == id) return i;
  errno = ENOENT;
  die("object");
  return -1;
}

static void fill(int file, int fd, uint64_t off, uint64_t len) {
  static char buffer[1 << 20];
  uint64_t end = off + len;
  while (off < end) {
    size_t want = end - off < sizeof buffer ? (size_t)(end - off) : sizeof buffer;
    ssize_t got = pread(file, buffer, want, (off_t)off);
    if (got < 0) die("read the file");
    memset(buffer + got, 0, want - (size_t)got);
    ssize_t put;
    do put = pwrite(fd, buffer, want, (off_t)off); /* refused for a moment after copen */
    while (put < 0 && errno == ENOBUFS);
    if (put != (ssize_t)want) die("write the object");
    off += (uint64_t)put;
  }
}

static void serve(int device, int file, const struct message* message) {
  char text[64];
  if (message->opcode == OPEN) {
    const struct open_request* request = (const void*)message->data;
    struct stat status;
    int free_slot = object(0);
    objects[free_slot].id = message->object_id;
    objects[free_slot].fd = (int)request->fd;
    fstat(file, &status);
    snprintf(text, sizeof text, "copen %u,%lld", message->msg_id, (long long)status.st_size);
    command(device, text);
  } else if (message->opcode == READ) {
    const struct read_request* request = (const void*)message->data;
    int at = object(message->object_id);
    fill(file, objects[at].fd, request->off, request->len);
    if (ioctl(objects[at].fd, READ_COMPLETE, message->msg_id)) die("complete");
  } else {
    int at = object(message->object_id);
    close(objects[at].fd);
    objects[at].id = 0;
    ++closed;
  }
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  int file = open(argv[2], O_RDONLY);
  if (file < 0) die(argv[2]);
  int device = open("/dev/cachefiles", O_RDWR);
  if (device < 0) die("/dev/cachefiles");
  char text[4096];
  snprintf(text, sizeof text, "dir %s", argv[1]);
  command(device, text);
  command(device, "tag test");
  command(device, "bind ondemand");
  puts("ready");
  fflush(stdout);
  while (closed < atoi(argv[3])) {
    struct pollfd ready = {device, POLLIN, 0};
    if (poll(&ready, 1, -1) < 0) die("poll");
    if (ready.revents & ~POLLIN) die("revents");
    union {
      struct message message;
      char bytes[1024];
    } buffer;
    ssize_t got = read(device, &buffer, sizeof buffer);
    if (got < 0) die("read");
    if (got > 0) serve(device, file, &buffer.message);
  }
  return 0;
}
