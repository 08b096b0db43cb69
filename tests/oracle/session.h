// Runs one script on a machine, step by step, and says what each step gave in one line.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/oracle/machine.h"

namespace hydrant::oracle {

class Session {
 public:
  explicit Session(Machine& machine) : machine_(machine) {}

  // The step's own result; then the channel's poll mask; then the consumers that ended, by name.
  std::string run(const std::string& step);

 private:
  using Words = std::vector<std::string>;

  std::string perform(const Words& words, const std::string& rest);
  std::string consumer_step(const Words& words);
  std::string handle_step(const Words& words);
  std::string read_message(size_t size, bool bad_address, int channel);
  std::string describe(const std::string& message);
  std::string list_files();
  // "o0" is the msg_id of the latest OPEN, "o1" of the one before; r: READs, c: CLOSEs; else a number.
  std::optional<std::string> id(const std::string& reference);
  // "h0": the latest handle; "hr": the one of the latest READ's object.
  std::optional<size_t> handle(const std::string& reference);
  std::string with_root(std::string text);

  Machine& machine_;
  std::map<char, std::vector<uint32_t>> ids_;
  std::vector<std::string> handle_key_;      // the object of each handle
  std::map<uint32_t, size_t> handle_of_id_;  // by object id
  uint32_t read_object_ = 0;
  std::set<std::string> running_, used_;
};

}  // namespace hydrant::oracle
