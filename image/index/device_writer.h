// Lays out a layer's device while its tar is read (the V layout): every file on a block of its own, in tar order.
#pragma once

#include <vector>

#include "base/digest.h"
#include "image/index/granule_assembler.h"
#include "image/index/layer_index.h"
#include "image/layout.h"
#include "image/tar/tar_reader.h"

namespace hydrant::image {

// Not thread-safe.
class DeviceWriter final : public TarVisitor {
 public:
  // `sink` may be empty.
  DeviceWriter(uint32_t granule, DeviceSink sink);

  Result<> on_entry(FileEntry&& entry, TarData&& data) override;
  Result<> on_data(uint64_t tar_offset, Bytes bytes) override;
  Result<> on_entry_end() override { return {}; }

  // The tar is complete; yields the device's size.
  Result<uint64_t> finish();

  // What the index keeps; `leaves` is complete after `finish`.
  FileTable files;
  std::vector<LayoutRow> rows;
  std::vector<Digest> leaves;

 private:
  Result<> emit(uint64_t device_offset, Bytes bytes);

  const uint32_t granule_;
  const DeviceSink sink_;
  GranuleAssembler assembler_;
  uint64_t end_ = 0;        // of the data placed so far
  size_t current_row_ = 0;  // the row that on_data is filling
};

}  // namespace hydrant::image
