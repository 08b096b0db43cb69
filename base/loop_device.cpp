#include "base/loop_device.h"

#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "base/file.h"

namespace hydrant {

namespace {

constexpr int kAttempts = 64;  // somebody else may take the free device first

// 0 or an errno. The old pair of calls is for kernels before 5.8; between the two the device would outlive us.
int configure(const Fd& device, const Fd& file) {
  loop_config config{};
  config.fd = static_cast<uint32_t>(file.get());
  config.block_size = 4096;
  config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
  if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return 0;
  if (errno != EINVAL && errno != ENOTTY) return errno;
  if (::ioctl(device.get(), LOOP_SET_FD, file.get()) != 0) return errno;
  if (::ioctl(device.get(), LOOP_SET_STATUS64, &config.info) == 0) return 0;
  const int err = errno;
  ::ioctl(device.get(), LOOP_CLR_FD, 0);
  return err;
}

}  // namespace

Result<Fd> attach_loop(const Fd& file) {
  constexpr const char* kNone =
      "no loop devices here: load the loop module (modprobe loop), or pass /dev into the container";
  auto control = open_file("/dev/loop-control", O_RDWR);
  if (!control) return fail(Code::kUnsupported, kNone + (" (" + control.error().what + ")"));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ::ioctl(control->get(), LOOP_CTL_GET_FREE);
    if (number < 0 && errno == ENOTTY) return fail(Code::kUnsupported, kNone);
    if (number < 0) return fail_sys(errno, "find a free loop device");
    const std::string path = "/dev/loop" + std::to_string(number);
    auto device = open_file(path, O_RDONLY);
    if (!device) return fail(Code::kUnsupported, kNone + (" (" + device.error().what + ")"));
    const int err = configure(*device, file);
    if (err == 0) return std::move(*device);
    if (err != EBUSY) return fail_sys(err, "set up " + path);
  }
  return fail(Code::kBusy, "others take every free loop device: try again");
}

}  // namespace hydrant
