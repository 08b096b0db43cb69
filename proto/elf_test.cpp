#include "proto/elf.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>

namespace hydrant::proto {
namespace {

using Form = ProgramHead::Form;

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#endif

struct Segment {
  uint32_t type;
  std::string bytes;
};

Buffer elf(const std::vector<Segment>& segments) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_machine = kMachine;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<uint16_t>(segments.size());
  Buffer out = to_buffer(std::as_bytes(std::span(&header, 1)));
  uint64_t at = sizeof header + segments.size() * sizeof(Elf64_Phdr);
  for (auto& segment : segments) {
    Elf64_Phdr entry{};
    entry.p_type = segment.type;
    entry.p_offset = at;
    entry.p_filesz = segment.bytes.size();
    append(out, std::as_bytes(std::span(&entry, 1)));
    at += segment.bytes.size();
  }
  for (auto& segment : segments) append(out, as_bytes(segment.bytes));
  return out;
}

const Segment kInterpreter{PT_INTERP, std::string("/lib64/ld-linux-x86-64.so.2\0", 28)};
const Segment kGoNote{PT_NOTE, std::string("\4\0\0\0\2\0\0\0\4\0\0\0Go\0\0id", 18)};
const Segment kGnuNote{PT_NOTE, std::string("\4\0\0\0\1\0\0\0\3\0\0\0GNU\0x\0\0\0", 20)};

TEST(Elf, TellsHowAProgramIsStarted) {
  auto form = [](Bytes head) { return read_program_head(head).form; };
  EXPECT_EQ(form(elf({{PT_LOAD, "code"}, kInterpreter, kGnuNote})), Form::kDynamic);
  EXPECT_EQ(read_program_head(elf({kInterpreter})).interpreter, "/lib64/ld-linux-x86-64.so.2");
  EXPECT_EQ(form(elf({{PT_LOAD, "code"}, {PT_DYNAMIC, ""}})), Form::kStatic) << "static-pie";
  EXPECT_EQ(form(elf({kInterpreter, {PT_NOTE, kGnuNote.bytes + kGoNote.bytes}})), Form::kGo);
  EXPECT_EQ(form(elf({{PT_LOAD, "code"}, kGoNote})), Form::kStatic);
  Buffer other = elf({kInterpreter});
  other[EI_CLASS] = std::byte{ELFCLASS32};
  EXPECT_EQ(form(other), Form::kForeign);
}

TEST(Elf, ScriptsNameTheirInterpreter) {
  auto script = read_program_head(as_bytes("#! /usr/bin/env python3\nprint()"));
  EXPECT_EQ(script.form, Form::kScript);
  EXPECT_EQ(script.interpreter, "/usr/bin/env");
  EXPECT_EQ(read_program_head(as_bytes("#!")).interpreter, "");
}

TEST(Elf, NothingIsReadOutsideTheFile) {
  Buffer whole = elf({{PT_LOAD, "code"}, kInterpreter, kGoNote});
  for (size_t size = 0; size < whole.size(); ++size) (void)read_program_head(Bytes(whole).first(size));
  EXPECT_EQ(read_program_head(as_bytes("")).form, Form::kOther);
  EXPECT_EQ(read_program_head(as_bytes("echo hello")).form, Form::kOther);
  EXPECT_EQ(read_program_head(Bytes(whole).first(64)).form, Form::kOther) << "without its table";
}

}  // namespace
}  // namespace hydrant::proto
