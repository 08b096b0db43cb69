#include "fetch/device_channel.h"

#include "base/log.h"

namespace hydrant::fetch {

namespace {
constexpr char kName[] = "cachefiles";  // of the descriptor where it is held
}

Result<> DeviceChannel::begin() {
  if (Fd left = store_.take(kName)) {
    Fd ours = left.duplicate();
    auto adopted = KernelControl::start(std::move(left), options_);
    if (adopted) {
      log::info("device.adopted", {{"cache", options_.cache_dir}});
      store_.put(kName, std::move(ours));
      first_ = *std::move(adopted);
      store_.ready();
      return {};
    }
    if (adopted.error().code != Code::kGone) return fail(std::move(adopted).error());
    log::warn("device.lost", {{"reason", adopted.error().what}});
    store_.drop_left({kName});
  }
  HYDRANT_TRY(first_, open());
  store_.ready();
  return {};
}

Result<std::unique_ptr<Control>> DeviceChannel::connect() {
  if (first_) return std::move(first_);
  store_.drop();
  return open();
}

Result<std::unique_ptr<Control>> DeviceChannel::open() {
  HYDRANT_TRY(Fd device, KernelControl::open_device(path_));
  Fd copy = device.duplicate();
  HYDRANT_TRY(auto control, KernelControl::start(std::move(device), options_));
  log::info("device.bound", {{"device", path_}, {"cache", options_.cache_dir}, {"tag", options_.tag}});
  store_.put(kName, std::move(copy));
  return control;
}

}  // namespace hydrant::fetch
