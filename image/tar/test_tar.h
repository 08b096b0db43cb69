// For tests: writes tar members block by block, right or wrong on purpose.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace hydrant::image {

struct TestMember {
  std::string name;
  char type = '0';
  std::string data{};
  std::string link{};
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  uint64_t mtime = 0;
  unsigned major = 0;
  unsigned minor = 0;
  std::string prefix{};
  int64_t claimed_size = -1;  // instead of data.size()
  std::string tail_fields{};  // bytes from offset 345 on, instead of the prefix
  bool signed_checksum = false;
};

class TestTar {
 public:
  TestTar& add(const TestMember& member) {
    std::string block(512, '\0');
    auto put = [&](size_t at, std::string_view text) { std::memcpy(block.data() + at, text.data(), text.size()); };
    auto number = [&](size_t at, int width, uint64_t value) {
      char text[32];
      std::snprintf(text, sizeof text, "%0*llo", width - 1, static_cast<unsigned long long>(value));
      put(at, text);
    };
    put(0, std::string_view(member.name).substr(0, 100));
    number(100, 8, member.mode);
    number(108, 8, member.uid);
    number(116, 8, member.gid);
    number(124, 12, member.claimed_size < 0 ? member.data.size() : member.claimed_size);
    number(136, 12, member.mtime);
    block[156] = member.type;
    put(157, std::string_view(member.link).substr(0, 100));
    put(257, member.magic);
    number(329, 8, member.major);
    number(337, 8, member.minor);
    put(345, member.tail_fields.empty() ? member.prefix : member.tail_fields);
    return add_block(block, member.signed_checksum).raw(member.data).pad();
  }
  TestTar& add_block(std::string block, bool signed_checksum = false) {
    std::memset(block.data() + 148, ' ', 8);
    int sum = 0;
    for (char c : block) sum += signed_checksum ? static_cast<signed char>(c) : static_cast<unsigned char>(c);
    for (int i = 5; i >= 0; --i, sum >>= 3) block[148 + i] = static_cast<char>('0' + (sum & 7));
    block[154] = '\0';
    return raw(block);
  }
  TestTar& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  TestTar& pad() {
    bytes_.resize((bytes_.size() + 511) / 512 * 512);
    return *this;
  }
  TestTar& end() { return raw(std::string(1024, '\0')); }
  const std::string& bytes() const { return bytes_; }

  // A pax header with these records, for the next member or (type 'g') for all.
  TestTar& pax(std::initializer_list<std::pair<std::string, std::string>> records, char type = 'x') {
    std::string text;
    for (const auto& [key, value] : records) {
      size_t body = key.size() + value.size() + 3;
      size_t length = body + 1;
      while (std::to_string(length).size() + body != length) ++length;
      text += std::to_string(length) + " " + key + "=" + value + "\n";
    }
    return add({.name = "pax", .type = type, .data = text});
  }

 private:
  std::string bytes_;
};

}  // namespace hydrant::image
