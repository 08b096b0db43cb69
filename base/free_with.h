// Owners of what C libraries hand out: std::unique_ptr<BIO, FreeWith<BIO_free>>.
#pragma once

namespace hydrant {

template <auto kFree>
struct FreeWith {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};

}  // namespace hydrant
