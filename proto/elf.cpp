#include "proto/elf.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

namespace hydrant::proto {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#endif

// Empty when it leaves what we have.
Bytes part(Bytes all, uint64_t offset, uint64_t size) {
  if (offset > all.size() || size > all.size() - offset) return {};
  return all.subspan(offset, size);
}

// Go's linker leaves a note under its own name.
bool has_go_note(Bytes notes) {
  while (notes.size() >= 12) {
    auto name_size = load_le<uint32_t>(notes.data());
    auto data_size = load_le<uint32_t>(notes.data() + 4);
    if (as_text(part(notes, 12, name_size)) == std::string_view("Go\0\0", 4)) return true;
    uint64_t next = 12 + ((uint64_t{name_size} + 3) & ~uint64_t{3}) + ((uint64_t{data_size} + 3) & ~uint64_t{3});
    if (next > notes.size()) return false;
    notes = notes.subspan(next);
  }
  return false;
}

ProgramHead read_script(Bytes head) {
  std::string_view line = as_text(head).substr(2);
  line = line.substr(0, line.find_first_of(std::string_view("\n\0", 2)));
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  return {ProgramHead::Form::kScript, std::string(line.substr(0, line.find_first_of(" \t")))};
}

}  // namespace

ProgramHead read_program_head(Bytes head) {
  using Form = ProgramHead::Form;
  if (as_text(head).starts_with("#!")) return read_script(head);
  Elf64_Ehdr header;
  if (!as_text(head).starts_with(ELFMAG) || head.size() < EI_NIDENT) return {};
  if (head[EI_CLASS] != std::byte{ELFCLASS64} || head[EI_DATA] != std::byte{ELFDATA2LSB}) return {Form::kForeign};
  if (head.size() < sizeof header) return {};
  std::memcpy(&header, head.data(), sizeof header);
  if (header.e_machine != kMachine) return {Form::kForeign};
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return {};
  ProgramHead found{Form::kStatic};
  Bytes table = part(head, header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr));
  if (table.empty()) return {};
  bool go = false;
  for (; !table.empty(); table = table.subspan(sizeof(Elf64_Phdr))) {
    Elf64_Phdr segment;
    std::memcpy(&segment, table.data(), sizeof segment);
    Bytes bytes = part(head, segment.p_offset, segment.p_filesz);
    if (segment.p_type == PT_INTERP) {
      found.form = Form::kDynamic;
      found.interpreter = std::string(as_text(bytes).substr(0, as_text(bytes).find('\0')));
    }
    if (segment.p_type == PT_NOTE) go |= has_go_note(bytes);
  }
  if (go && found.form == Form::kDynamic) found.form = Form::kGo;
  return found;
}

}  // namespace hydrant::proto
