#include "image/index/plain_reader.h"

#include <stdlib.h>

#include <algorithm>

#include "base/file.h"
#include "image/erofs/reader.h"
#include "image/index/erofs_rows.h"

namespace hydrant::image {
namespace {

constexpr uint64_t kPiece = 1 << 20;
constexpr size_t kTarBlock = 512;

// The sum of a header's bytes, its checksum field counted as blanks, stands in that field in octal. V7 archives have
// nothing else to know them by.
bool has_tar_checksum(Bytes block) {
  uint64_t sum = 0, stored = 0;
  for (size_t i = 0; i < block.size(); ++i) sum += i >= 148 && i < 156 ? ' ' : uint8_t(block[i]);
  for (char digit : as_text(block.subspan(148, 8)))
    if (digit >= '0' && digit <= '7') stored = stored * 8 + uint64_t(digit - '0');
  return stored == sum;
}

Result<Fd> nameless_file(const std::string& directory) {
  std::string path = directory + "/layer-XXXXXX";
  Fd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return fail_sys(errno, "a temporary file in " + directory);
  ::unlink(path.c_str());
  return fd;
}

}  // namespace

// An archive may hold whatever bytes at the place of the magic.
PlainKind plain_kind(Bytes head) {
  if (head.size() < kTarBlock) return PlainKind::kUnknown;
  const Bytes block = head.first(kTarBlock);
  if (has_tar_checksum(block)) return PlainKind::kTar;
  if (is_erofs(head)) return PlainKind::kErofs;
  const bool zeros = std::all_of(block.begin(), block.end(), [](std::byte b) { return b == std::byte{0}; });
  return zeros ? PlainKind::kTar : PlainKind::kUnknown;
}

Result<> PlainReader::feed(Bytes plain) {
  if (decided_) return take(plain);
  const Bytes part = plain.first(std::min(plain.size(), kPlainHead - head_.size()));
  append(head_, part);
  if (head_.size() < kPlainHead) return {};
  HYDRANT_TRY_VOID(decide());
  return take(plain.subspan(part.size()));
}

Result<> PlainReader::decide() {
  decided_ = true;
  if (plain_kind(head_) == PlainKind::kErofs) {
    HYDRANT_TRY(spool_, nameless_file(spool_directory_));
  }
  return take(std::exchange(head_, {}));
}

Result<> PlainReader::take(Bytes plain) { return spool_ ? spool(plain) : tar_.feed(plain); }

Result<> PlainReader::spool(Bytes plain) {
  HYDRANT_TRY_VOID(pwrite_all(spool_.get(), plain, spooled_));
  spooled_ += plain.size();
  return {};
}

Result<> PlainReader::finish() {
  if (!decided_) HYDRANT_TRY_VOID(decide());
  return spool_ ? write_erofs_data() : tar_.finish();
}

Result<> PlainReader::write_erofs_data() {
  const ReadImage read = [&](uint64_t offset, MutableBytes out) { return pread_exact(spool_.get(), out, offset); };
  HYDRANT_TRY(auto table, read_erofs(spooled_, read));
  HYDRANT_TRY(auto rows, place_erofs(table));
  const size_t plain_rows = rows.size() - table.packed.size();
  HYDRANT_TRY_VOID(device_.assume(std::move(table.files), std::move(rows)));
  Buffer piece;
  for (size_t i = 0; i < plain_rows; ++i) {
    const LayoutRow row = device_.rows()[i];
    for (uint64_t done = 0; done < row.length; done += piece.size()) {
      piece.resize(std::min(kPiece, row.length - done));
      HYDRANT_TRY_VOID(pread_exact(spool_.get(), piece, row.tar_offset + done));
      HYDRANT_TRY_VOID(device_.on_data(row.tar_offset + done, piece));
    }
  }
  if (table.packed.empty()) return spool_.reset(), Result<>();
  std::swap(table.files, device_.files);  // errors name files
  auto unpacked = unpack_erofs(table, read, [&](size_t packed, uint64_t offset, Bytes bytes) {
    return device_.on_data(device_.rows()[plain_rows + packed].tar_offset + offset, bytes);
  });
  std::swap(table.files, device_.files);
  HYDRANT_TRY_VOID(std::move(unpacked));
  const LayoutRow& last = device_.rows().back();
  decoded_ = {last.tar_offset + last.length - spooled_, table.algorithms()};
  spool_.reset();
  return {};
}

}  // namespace hydrant::image
