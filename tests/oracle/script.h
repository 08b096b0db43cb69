// Scripts as text: see README.md.
#pragma once

#include <istream>
#include <string>
#include <vector>

namespace hydrant::oracle {

struct Script {
  std::string name;
  std::vector<std::string> steps;
};

// Comments, blank lines and recorded results are left out.
std::vector<Script> read_scripts(std::istream& in);
// \n, \0, \\ and \xHH.
std::string unescape(const std::string& text);

}  // namespace hydrant::oracle
