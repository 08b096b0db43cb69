#include "tests/oracle/script.h"

namespace hydrant::oracle {

std::vector<Script> read_scripts(std::istream& in) {
  std::vector<Script> out;
  for (std::string line; std::getline(in, line);) {
    if (auto result = line.find(" => "); result != line.npos) line.resize(result);
    if (line.empty() || line[0] == '#') continue;
    if (line.rfind("= ", 0) == 0)
      out.push_back({line.substr(2), {}});
    else if (!out.empty())
      out.back().steps.push_back(line);
  }
  return out;
}

std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    char c = text[++i];
    if (c == 'x' && i + 2 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += c == 'n' ? '\n' : c == '0' ? '\0' : c;
    }
  }
  return out;
}

}  // namespace hydrant::oracle
