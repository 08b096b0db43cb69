#include "image/tar/tar_reader.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/byte_range.h"
#include "image/tar/tar_header.h"
#include "image/tar/tar_member.h"
#include "image/tar/tar_path.h"
#include "image/tar/tar_pax.h"
#include "image/tar/tar_sparse.h"

namespace hydrant::image {

// Collects one thing at a time: a block, the text of a header, or a payload. Only the headers before a member
// accumulate; begin_member() consumes them.
class TarReader::Parser {
 public:
  Parser(TarVisitor& visitor, TarLimits limits) : visitor_(visitor), limits_(limits) {}

  Result<> feed(Bytes bytes);
  Result<> finish() const;
  uint64_t offset() const { return offset_; }

 private:
  enum class State {
    kHeader,           // collecting block_
    kText,             // collecting text_ of a pax header or a GNU long name
    kSparseExtension,  // collecting block_: more runs of an old GNU map
    kSparseMap,        // collecting block_: lines of a pax 1.0 map
    kPayload,          // handing out segments
    kSkip,             // up to member_end_
    kEnd,              // after the end mark
  };

  Result<> step(Bytes& bytes);
  Bytes take(Bytes& bytes, uint64_t most);
  Result<> take_text(Bytes& bytes);
  Result<> take_payload(Bytes& bytes);

  Result<> on_block();
  Result<> on_header();
  Result<> on_text();
  Result<> begin_text();
  Result<> begin_member();
  Result<> begin_payload();
  Result<> begin_sparse();
  Result<> place_sparse();
  Result<> announce(std::vector<TarSegment> segments);
  Result<> end_payload();
  void skip_rest() { state_ = offset_ == member_end_ ? State::kHeader : State::kSkip; }

  TarVisitor& visitor_;
  const TarLimits limits_;
  State state_ = State::kHeader;
  std::optional<Error> failed_;
  uint64_t offset_ = 0;
  uint64_t entries_ = 0;
  std::array<std::byte, kTarBlock> block_;
  size_t block_size_ = 0;
  bool zero_block_seen_ = false;

  // Headers that come before a member's own.
  TarHeader header_;
  std::string text_;
  uint64_t text_padding_ = 0;
  uint64_t member_text_bytes_ = 0;
  uint64_t global_text_bytes_ = 0;
  PaxValues global_;
  PaxValues pax_;
  std::optional<std::string> long_name_;
  std::optional<std::string> long_link_;
  bool member_is_due_ = false;

  // The member whose payload is being read.
  FileEntry entry_;   // until it is announced
  std::string path_;  // of one that has a payload
  uint64_t payload_end_ = 0;
  uint64_t member_end_ = 0;  // payload_end_ and padding
  uint64_t payload_begin_ = 0;
  std::vector<TarSegment> segments_;
  size_t segment_ = 0;  // the one being handed out
  std::vector<SparseRun> runs_;
  std::optional<PaxSparseMap> map_;
};

Bytes TarReader::Parser::take(Bytes& bytes, uint64_t most) {
  Bytes out = bytes.first(std::min<uint64_t>(most, bytes.size()));
  bytes = bytes.subspan(out.size());
  offset_ += out.size();
  return out;
}

Result<> TarReader::Parser::feed(Bytes bytes) {
  while (!failed_ && !bytes.empty()) {
    auto stepped = step(bytes);
    if (!stepped) failed_ = std::move(stepped).error().in("tar byte " + std::to_string(offset_));
  }
  if (failed_) return fail(*failed_);
  return {};
}

Result<> TarReader::Parser::finish() const {
  if (failed_) return fail(*failed_);
  bool between_members = state_ == State::kHeader && block_size_ == 0 && !member_is_due_;
  if (between_members || state_ == State::kEnd) return {};
  return fail(Code::kCorrupt, "the tar archive is truncated: it stops at byte " + std::to_string(offset_) +
                                  (state_ == State::kPayload ? ", inside " + printable(path_) : ""));
}

Result<> TarReader::Parser::step(Bytes& bytes) {
  switch (state_) {
    case State::kHeader:
    case State::kSparseExtension:
    case State::kSparseMap: {
      Bytes part = take(bytes, kTarBlock - block_size_);
      std::copy(part.begin(), part.end(), block_.begin() + block_size_);
      block_size_ += part.size();
      if (block_size_ < kTarBlock) return {};
      block_size_ = 0;
      return on_block();
    }
    case State::kText: return take_text(bytes);
    case State::kPayload: return take_payload(bytes);
    case State::kSkip:
      take(bytes, member_end_ - offset_);
      skip_rest();
      return {};
    case State::kEnd: take(bytes, bytes.size()); return {};
  }
  return {};
}

Result<> TarReader::Parser::on_block() {
  if (state_ == State::kSparseExtension) {
    HYDRANT_TRY(bool more, append_old_runs(block_, OldSparseBlock::kExtension, runs_));
    if (runs_.size() > limits_.max_segments) return fail(Code::kUnsupported, "a sparse file has too many runs");
    return more ? Result<>() : place_sparse();
  }
  if (state_ == State::kSparseMap) {
    if (offset_ > payload_end_) return fail(Code::kCorrupt, "a sparse map is longer than its member");
    HYDRANT_TRY(bool complete, map_->add_block(block_));
    if (!complete) return {};
    runs_ = map_->take_runs();
    return place_sparse();
  }
  if (std::all_of(block_.begin(), block_.end(), [](std::byte b) { return b == std::byte{0}; })) {
    if (member_is_due_) return fail(Code::kCorrupt, "the end mark stands where a header announced a member");
    if (zero_block_seen_) state_ = State::kEnd;
    zero_block_seen_ = true;
    return {};
  }
  if (zero_block_seen_) return fail(Code::kCorrupt, "a member follows a block of zeros");
  return on_header();
}

Result<> TarReader::Parser::on_header() {
  HYDRANT_TRY(header_, decode_tar_header(block_));
  switch (header_.type) {
    case 'x':
    case 'X':  // Solaris, before the standard
    case 'g':
    case 'L':
    case 'K': return begin_text();
  }
  return begin_member();
}

Result<> TarReader::Parser::begin_text() {
  uint64_t& total = header_.type == 'g' ? global_text_bytes_ : member_text_bytes_;
  if (header_.size > limits_.max_header_bytes || total + header_.size > limits_.max_header_bytes) {
    return fail(Code::kUnsupported,
                "the headers before a member are larger than " + std::to_string(limits_.max_header_bytes) + " bytes");
  }
  total += header_.size;
  if (header_.type != 'g') member_is_due_ = true;
  text_.clear();
  text_padding_ = round_up(header_.size, kTarBlock) - header_.size;
  state_ = State::kText;
  return header_.size == 0 ? on_text() : Result<>();
}

Result<> TarReader::Parser::take_text(Bytes& bytes) {
  text_ += as_text(take(bytes, header_.size - text_.size()));
  if (text_.size() < header_.size) return {};
  text_padding_ -= take(bytes, text_padding_).size();
  return text_padding_ == 0 ? on_text() : Result<>();
}

Result<> TarReader::Parser::on_text() {
  state_ = State::kHeader;
  switch (header_.type) {
    case 'g': return decode_pax(as_bytes(text_), PaxScope::kGlobal, global_);
    case 'L': long_name_ = text_.substr(0, text_.find('\0')); return {};
    case 'K': long_link_ = text_.substr(0, text_.find('\0')); return {};
  }
  return decode_pax(as_bytes(text_), PaxScope::kOneMember, pax_);
}

Result<> TarReader::Parser::begin_member() {
  if (++entries_ > limits_.max_entries) {
    return fail(Code::kUnsupported, "the archive has more than " + std::to_string(limits_.max_entries) + " members");
  }
  if (!pax_.uid) pax_.uid = global_.uid;
  if (!pax_.gid) pax_.gid = global_.gid;
  if (!pax_.mtime) {
    pax_.mtime = global_.mtime;
    pax_.mtime_nsec = global_.mtime_nsec;
  }
  pax_.xattrs.insert(global_.xattrs.begin(), global_.xattrs.end());
  // The weaker name first.
  if (long_name_) header_.name = *std::move(long_name_);
  if (pax_.path) header_.name = *pax_.path;
  if (pax_.sparse.name) header_.name = *pax_.sparse.name;
  if (long_link_) header_.link_name = *std::move(long_link_);
  if (pax_.link_path) header_.link_name = *pax_.link_path;
  if (pax_.size) header_.size = *pax_.size;
  auto begun = begin_payload();
  if (!begun) return fail(std::move(begun).error().in(printable(header_.name)));
  pax_ = {};
  long_name_.reset();
  long_link_.reset();
  member_text_bytes_ = 0;
  member_is_due_ = false;
  return {};
}

Result<> TarReader::Parser::begin_payload() {
  uint64_t size = has_payload(header_.type) ? header_.size : 0;
  if (size > limits_.max_file_size) {
    return fail(Code::kUnsupported, "the member is larger than " + std::to_string(limits_.max_file_size) + " bytes");
  }
  payload_begin_ = offset_;
  payload_end_ = offset_ + size;
  member_end_ = offset_ + round_up(size, kTarBlock);
  if (header_.type == 'V') return skip_rest(), Result<>();  // a volume's label
  HYDRANT_TRY(std::optional<FileEntry> entry, make_entry(header_, pax_));
  if (!entry) return skip_rest(), Result<>();
  entry_ = *std::move(entry);
  if (entry_.type != FileType::kRegular) return announce({});
  if (header_.type == 'S' || pax_.sparse.present) return begin_sparse();
  if (size == 0) return announce({});
  return announce({{0, payload_begin_, size}});
}

Result<> TarReader::Parser::begin_sparse() {
  if (header_.type == 'S') {
    if (header_.dialect != TarDialect::kGnu) return fail(Code::kUnsupported, "the form of this sparse file is unknown");
    runs_.clear();
    HYDRANT_TRY(entry_.size, old_real_size(block_));
    HYDRANT_TRY(bool more, append_old_runs(block_, OldSparseBlock::kHeader, runs_));
    if (!more) return place_sparse();
    // Extension blocks stand between the header and the payload; place_sparse() moves the payload behind them.
    state_ = State::kSparseExtension;
    return {};
  }
  if (!pax_.sparse.real_size) return fail(Code::kCorrupt, "a sparse file has no size");
  entry_.size = *pax_.sparse.real_size;
  uint64_t major = pax_.sparse.major.value_or(0);
  uint64_t minor = pax_.sparse.minor.value_or(0);
  if (major == 0 && minor <= 1) {
    runs_ = std::move(pax_.sparse.runs);
    return place_sparse();
  }
  if (major != 1 || minor != 0) return fail(Code::kUnsupported, "the form of this sparse file is unknown");
  map_.emplace(limits_.max_segments);
  state_ = State::kSparseMap;
  return {};
}

// All runs are known and offset_ is where the data begins.
Result<> TarReader::Parser::place_sparse() {
  if (entry_.size > limits_.max_file_size) return fail(Code::kUnsupported, "a sparse file is too large");
  if (state_ == State::kSparseExtension) {
    uint64_t map_bytes = offset_ - payload_begin_;
    payload_begin_ = offset_;
    payload_end_ += map_bytes;
    member_end_ += map_bytes;
  }
  HYDRANT_TRY(auto segments, place_runs(runs_, offset_, payload_end_ - offset_, entry_.size));
  return announce(std::move(segments));
}

Result<> TarReader::Parser::announce(std::vector<TarSegment> segments) {
  segments_ = segments;
  segment_ = 0;
  TarData data{.tar_offset = payload_begin_, .segments = std::move(segments)};
  if (!segments_.empty()) path_ = entry_.path;
  HYDRANT_TRY_VOID(visitor_.on_entry(std::move(entry_), std::move(data)));
  if (segments_.empty()) return end_payload();
  state_ = State::kPayload;
  return {};
}

// Segments follow each other without a gap: place_runs() and the plain case see to it.
Result<> TarReader::Parser::take_payload(Bytes& bytes) {
  const TarSegment& segment = segments_[segment_];
  uint64_t at = offset_;
  uint64_t segment_end = segment.tar_offset + segment.length;
  HYDRANT_TRY_VOID(visitor_.on_data(at, take(bytes, segment_end - at)));
  if (offset_ == segment_end && ++segment_ == segments_.size()) return end_payload();
  return {};
}

Result<> TarReader::Parser::end_payload() {
  skip_rest();
  return visitor_.on_entry_end();
}

TarReader::TarReader(TarVisitor& visitor, TarLimits limits) : parser_(std::make_unique<Parser>(visitor, limits)) {}
TarReader::~TarReader() = default;
TarReader::TarReader(TarReader&&) noexcept = default;
Result<> TarReader::feed(Bytes bytes) { return parser_->feed(bytes); }
Result<> TarReader::finish() { return parser_->finish(); }
uint64_t TarReader::offset() const { return parser_->offset(); }

}  // namespace hydrant::image
