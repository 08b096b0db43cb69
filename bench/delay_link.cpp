// delay_link PID_A PID_B MILLISECONDS: a link with a round-trip time between the network namespaces of two processes.
//
// Makes a TUN device `link0` in each and carries every packet from one to the other, holding it for half of the time.
// Packets are carried whole (offloads stay on), so TCP sees the delay end to end, handshake included; the rate is for a
// queueing discipline on the devices to set. Prints "ready", then runs until it is killed; the devices go with it.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// A packet with the header that says what is left to its receiver: 64 KiB and a little.
constexpr size_t kLargestPacket = 66 << 10;
// What a link holds at most; more is dropped, as a router would.
constexpr size_t kLargestQueue = 64 << 20;

[[noreturn]] void die(const char* what) {
  std::perror((std::string("delay_link: ") + what).c_str());
  std::exit(1);
}

int make_device(const char* pid) {
  int space = open((std::string("/proc/") + pid + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0) die(pid);
  close(space);
  int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (device < 0) die("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, "link0", sizeof request.ifr_name - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(device, TUNSETIFF, &request) != 0) die("TUNSETIFF");
  if (ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) die("TUNSETOFFLOAD");
  return device;
}

struct Packet {
  Clock::time_point due;
  std::vector<char> bytes;
};

[[noreturn]] void carry(int from, int to, std::chrono::microseconds delay) {
  std::deque<Packet> held;
  size_t held_bytes = 0;
  std::vector<char> buffer(kLargestPacket);
  for (;;) {
    pollfd readable = {.fd = from, .events = POLLIN, .revents = 0};
    timespec left{};
    if (!held.empty()) {
      auto wait = std::max(Clock::duration::zero(), held.front().due - Clock::now());
      left = {.tv_sec = wait / std::chrono::seconds(1), .tv_nsec = (wait % std::chrono::seconds(1)).count()};
    }
    if (ppoll(&readable, 1, held.empty() ? nullptr : &left, nullptr) < 0 && errno != EINTR) die("poll");
    for (;;) {
      ssize_t size = read(from, buffer.data(), buffer.size());
      if (size <= 0) break;
      if (held_bytes + static_cast<size_t>(size) > kLargestQueue) continue;
      held_bytes += static_cast<size_t>(size);
      held.push_back({Clock::now() + delay, {buffer.data(), buffer.data() + size}});
    }
    for (auto now = Clock::now(); !held.empty() && held.front().due <= now; held.pop_front()) {
      // A packet that the other side has no room for is lost, as on any link.
      [[maybe_unused]] ssize_t written = write(to, held.front().bytes.data(), held.front().bytes.size());
      held_bytes -= held.front().bytes.size();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: delay_link PID_A PID_B MILLISECONDS\n", stderr);
    return 2;
  }
  int a = make_device(argv[1]);
  int b = make_device(argv[2]);
  std::chrono::microseconds delay(static_cast<int64_t>(std::atof(argv[3]) * 500));
  std::puts("ready");
  std::fflush(stdout);
  std::thread back(carry, b, a, delay);
  carry(a, b, delay);
}
