// A close that is over when it returns, as the kernel's is: what hydrantd does at the last close of a device or a
// handle has been done when the program goes on.
#pragma once

namespace hydrant::shim {

// Around the call that closes `fd`. Does nothing for descriptors that are not ours.
class Closing {
 public:
  explicit Closing(int fd);
  Closing(const Closing&) = delete;
  // The descriptor is closed now, or was not: waits until hydrantd knows.
  ~Closing();

 private:
  int told_ = -1;  // our end of the pair whose other end hydrantd keeps until it is done
};

// Descriptors that the program does not know of and must not close: it is told that they are not open.
bool is_hidden(int fd);

}  // namespace hydrant::shim
