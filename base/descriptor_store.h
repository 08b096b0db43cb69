// Descriptors that outlive this process: whoever started it holds them and gives them to the next one. The keeper does,
// and so does systemd, for the words are its own: sd_notify(3) with FDSTORE, sd_listen_fds(3) at the start.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace hydrant {

// Owned by the main thread; put() and held_elsewhere() are for any. Without a holder every call does nothing and
// nothing is found.
class DescriptorStore {
 public:
  DescriptorStore() = default;
  // Takes what the environment names and removes it from there, so that no child inherits the words.
  static DescriptorStore from_environment();

  // What the predecessor left under that name; empty when it left nothing. Once.
  Fd take(const std::string& name);
  // Nothing that is here now has one of these numbers any more.
  void keep_off(const std::set<int>& numbers);
  // Replaces what is held under that name. Sent is held: it travels with the message, whoever dies. False: nobody holds
  // it now; who comes later gets it from check().
  bool put(const std::string& name, Fd fd);
  // Whether there is a holder now.
  bool held_elsewhere();
  // What is held under that name stays there when we drop() the rest.
  void leave(const std::string& name);
  // What the predecessor left under these names is of no use: it goes, there too.
  void drop_left(std::initializer_list<const char*> names);
  // Nothing is held any more, neither there nor here.
  void drop();
  void ready();
  // Now and then: finds a holder that has come in the place of a dead one, and gives it everything.
  void check();

 private:
  void find_holder();
  bool connect();
  bool send(std::string_view text, const Fd* fd = nullptr);

  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();  // of all below; one pointer so that it moves
  std::string address_;                                                 // empty: nobody holds anything
  Fd socket_;
  std::map<std::string, Fd> left_;  // by the predecessor
  std::map<std::string, Fd> held_;  // ours, kept to be given again
  bool ready_ = false;
};

}  // namespace hydrant
