// Lays out a layer's device while its tar is read (the V layout): every file on a block of its own, in tar order. An
// EROFS image comes with its layout made (erofs_rows.h), and what is its tar is the image.
#pragma once

#include <vector>

#include "base/digest.h"
#include "image/index/granule_assembler.h"
#include "image/index/layer_index.h"
#include "image/layout.h"
#include "image/tar/tar_reader.h"

namespace hydrant::image {

// kUnsupported for extended attributes that no file system takes.
Result<> check_xattrs(const FileEntry& entry);

// Finds file data its place on the device. Not thread-safe.
class DevicePlacer {
 public:
  // Gives `entry` its data pieces, behind those of the entries before. Segments of a sparse file that meet inside a
  // block share it; blocks that are all hole get no place.
  void place(FileEntry& entry, const std::vector<TarSegment>& segments);
  // Instead of entries: the rows of all of them, placed already.
  void assume(std::vector<LayoutRow> placed);
  // Of the device: whole blocks.
  uint64_t size() const;

  std::vector<LayoutRow> rows;

 private:
  uint64_t end_ = 0;  // of the data placed so far
};

// Not thread-safe.
class DeviceWriter final : public TarVisitor {
 public:
  // `sink` may be empty.
  DeviceWriter(uint32_t granule, DeviceSink sink);

  Result<> on_entry(FileEntry&& entry, TarData&& data) override;
  Result<> on_data(uint64_t tar_offset, Bytes bytes) override;
  Result<> on_entry_end() override { return {}; }

  // Instead of entries: all of them, with their data pieces and the rows of those. The rows' data follows as of a tar.
  Result<> assume(FileTable table, std::vector<LayoutRow> rows);

  // The tar is complete; yields the device's size.
  Result<uint64_t> finish();

  // What the index keeps; `leaves` is complete after `finish`.
  FileTable files;
  std::vector<LayoutRow>& rows() { return placer_.rows; }
  std::vector<Digest> leaves;

 private:
  Result<> emit(uint64_t device_offset, Bytes bytes);

  const uint32_t granule_;
  const DeviceSink sink_;
  DevicePlacer placer_;
  GranuleAssembler assembler_;
  size_t current_row_ = 0;  // the row that on_data is filling
};

}  // namespace hydrant::image
