// The control channel of a kernel for the request loop: the device is opened once and outlives us where somebody holds
// it, for when it closes the kernel's mounts lose whatever they do not have.
#pragma once

#include <memory>
#include <string>

#include "base/descriptor_store.h"
#include "fetch/transport/kernel_control.h"

namespace hydrant::fetch {

// Used by one thread at a time.
class DeviceChannel {
 public:
  DeviceChannel(std::string path, KernelControlOptions options, DescriptorStore store)
      : path_(std::move(path)), options_(std::move(options)), store_(std::move(store)) {}

  // Opens the device, or goes on with what a predecessor has left. Ahead of connect(), so that what is missing ends the
  // daemon with a sentence.
  Result<> begin();
  // What begin() has made; later a new channel, for the old one is lost.
  Result<std::unique_ptr<Control>> connect();

 private:
  Result<std::unique_ptr<Control>> open();

  const std::string path_;
  const KernelControlOptions options_;
  DescriptorStore store_;
  std::unique_ptr<Control> first_;
};

}  // namespace hydrant::fetch
