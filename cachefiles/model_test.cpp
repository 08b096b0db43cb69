// Random operations of a consumer and a user daemon against a sequential model of the specification. Each round is made
// of a seed. A failure is shrunk: it prints its seed and the fewest steps that fail. HYDRANT_MODEL_SEED runs one round
// alone, HYDRANT_STRESS changes their number.
#include <gtest/gtest-spi.h>

#include <cstdlib>
#include <random>
#include <set>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

using proto::Opcode;

constexpr int kKeys = 3;
constexpr uint64_t kBlocks = 6;
constexpr int64_t kSize = kBlocks * kBlock;
constexpr int kSteps = 150;

// What the specification says, in the plainest way that can be written down.
struct Model {
  enum class Life { kIdle, kOpening, kActive, kWithdrawing };
  enum class State { kClose, kOpen, kReopening };
  struct Object {
    Life life = Life::kIdle;
    State state = State::kClose;
    int incarnation = 0;
    int64_t id = 0;
    bool reopen_pending = false, reopen_again = false;
    bool retire = false;
    int opener = -1;  // the wait that the lookup completes
    std::set<uint64_t> blocks, stored;
  };
  struct Request {
    Opcode opcode;
    int object;
    bool fresh = true, reopen = false;
    int wait = -1;
  };
  struct Wait {
    int object;
    uint64_t at, end;
    bool done = false;
    int result = 0;
  };
  struct Handle {
    int object, incarnation;
    int64_t id;
  };

  Object objects[kKeys];
  std::map<uint32_t, Request> requests;
  std::vector<Wait> waits;
  uint32_t next_id = 0, cursor = 0;
  int64_t next_object_id = 1;

  void add(Request request) {
    if (request.reopen) objects[request.object].reopen_pending = true;
    requests[next_id++] = request;
  }
  Request take(uint32_t id) {
    Request out = requests.at(id);
    if (out.reopen) objects[out.object].reopen_pending = false;
    requests.erase(id);
    return out;
  }
  void finish(int wait, int result) { waits[wait].done = true, waits[wait].result = result; }

  void go_on(int index, bool second_pass) {
    Wait& wait = waits[index];
    Object& object = objects[wait.object];
    while (wait.at < wait.end) {
      if (object.blocks.contains(wait.at)) {
        ++wait.at;
        second_pass = false;
        continue;
      }
      if (second_pass) return finish(index, -EIO);
      return add({.opcode = Opcode::kRead, .object = wait.object, .wait = index});
    }
    finish(index, 0);
  }
  void fail_reads(int index, bool fresh_only) {
    for (auto at = requests.begin(); at != requests.end();) {
      auto current = at++;
      if (current->second.object != index || current->second.opcode != Opcode::kRead) continue;
      if (fresh_only && !current->second.fresh) continue;
      finish(take(current->first).wait, -EIO);
    }
  }
  void withdrawn(int index) {
    Object& object = objects[index];
    fail_reads(index, false);
    std::erase_if(requests, [&](auto& each) { return each.second.object == index; });
    if (object.retire)
      object.stored.clear();
    else if (object.life != Life::kOpening)
      object.stored = object.blocks;
    int incarnation = object.incarnation;
    auto stored = std::move(object.stored);
    object = {};
    object.incarnation = incarnation + 1;
    object.stored = std::move(stored);
  }
  void lookup_failed(int index) {
    finish(objects[index].opener, -ENOBUFS);
    withdrawn(index);
  }
  void reopen_finished(int index, int result) {
    Object& object = objects[index];
    bool wanted = std::exchange(object.reopen_again, false);
    if (result == 0 || object.state != State::kReopening) return;
    if (wanted && object.id == -1) return add({.opcode = Opcode::kOpen, .object = index, .reopen = true});
    if (object.id > 0) fail_reads(index, true);
    object.state = State::kClose;
  }
  void open_ended(const Request& request, int result) {
    Object& object = objects[request.object];
    if (request.reopen) return reopen_finished(request.object, result);
    if (result != 0) return lookup_failed(request.object);
    object.life = Life::kActive;
    object.blocks = object.stored;
    finish(object.opener, 0);
  }

  bool deliverable() const {
    return std::any_of(requests.begin(), requests.end(), [&](auto& each) {
      return each.second.fresh &&
             (each.second.opcode != Opcode::kRead || objects[each.second.object].state != State::kReopening);
    });
  }
  // The result of a control read, and the request it delivers.
  int64_t read(uint32_t* delivered, size_t key_sizes) {
    std::vector<uint32_t> order;
    for (auto& [id, request] : requests)
      if (id >= cursor) order.push_back(id);
    for (auto& [id, request] : requests)
      if (id < cursor) order.push_back(id);
    std::vector<int> reopen;
    int64_t result = 0;
    for (uint32_t id : order) {
      Request& request = requests.at(id);
      Object& object = objects[request.object];
      if (!request.fresh) continue;
      if (request.opcode == Opcode::kRead && object.state != State::kOpen) {
        if (object.state == State::kClose) {
          object.state = State::kReopening;
          if (object.reopen_pending)
            object.reopen_again = true;
          else
            reopen.push_back(request.object);
        }
        continue;
      }
      request.fresh = false;
      cursor = id + 1;
      *delivered = id;
      if (request.opcode == Opcode::kRead) {
        result = 32;
      } else if (request.opcode == Opcode::kClose) {
        result = 16;
        withdrawn(take(id).object);
      } else if (int64_t number = next_object_id++; object.id > 0) {
        result = -EEXIST;
      } else {
        object.id = number;
        result = static_cast<int64_t>(32 + key_sizes);
      }
      break;
    }
    for (int index : reopen) add({.opcode = Opcode::kOpen, .object = index, .reopen = true});
    if (result == -EEXIST) {
      Request request = take(*delivered);
      open_ended(request, -EEXIST);
    }
    return result;
  }
  // `size` is what was said, `parse_error` that it could not be read. The result of the write, 0 for success.
  int copen(uint32_t id, int64_t size, int parse_error) {
    auto found = requests.find(id);
    if (found == requests.end() || found->second.opcode != Opcode::kOpen || objects[found->second.object].id == 0)
      return -EINVAL;
    Request request = take(id);
    Object& object = objects[request.object];
    int result = 0, completion = 0;
    if (parse_error)
      result = completion = parse_error;
    else if (size < -4095)
      result = completion = -EINVAL;
    else if (size < 0)
      completion = static_cast<int>(size);
    else if (object.id == -1)
      completion = -EBADFD;
    else
      object.state = State::kOpen;
    if (object.id == -1) object.state = State::kClose;
    open_ended(request, completion);
    return result;
  }
  void close(const Handle& handle) {
    Object& object = objects[handle.object];
    if (object.incarnation != handle.incarnation || object.id != handle.id) return;
    object.id = -1;
    object.state = State::kClose;
    for (auto& [id, request] : requests) {
      if (request.object != handle.object || request.opcode != Opcode::kClose) continue;
      take(id);
      return withdrawn(handle.object);
    }
  }
};

class ModelTest : public EngineTest {
 protected:
  // A step is a number that all its choices follow from, whatever came before it: any part of a round is a round.
  using Round = std::vector<uint32_t>;

  uint64_t pick(uint64_t count) { return random_() % count; }
  void say(std::string step) { history_ += "\n  " + std::move(step); }

  struct Real {
    Outcome outcome;
    std::shared_ptr<Cookie::Wait> wait;
  };

  void use_one(int i) {
    auto& object = model_.objects[i];
    if (object.life != Model::Life::kIdle) return;
    say("use " + std::to_string(i));
    if (!cookie_[i]) cookie_[i] = cookie(name(i));
    object.life = Model::Life::kOpening;
    object.opener = static_cast<int>(model_.waits.size());
    model_.waits.push_back({.object = i, .at = 0, .end = 0});
    real_.push_back({use(*cookie_[i]), nullptr});
    model_.add({.opcode = Opcode::kOpen, .object = i});
  }
  void read_one() {
    uint32_t id = 0;
    int64_t expected = model_.read(&id, 2 + name(0).size());
    say("read -> " + std::to_string(expected) + " id " + std::to_string(id));
    ASSERT_EQ(Rd(), expected);
    if (expected <= 0) return;
    auto got = message();
    ASSERT_EQ(got.msg_id, id);
    if (got.opcode == Opcode::kOpen) {
      int object = model_.requests.at(id).object;
      ASSERT_EQ(got.object_id, model_.objects[object].id);
      handles_.push_back({{object, model_.objects[object].incarnation, model_.objects[object].id}, got.fd});
    }
    if (got.opcode == Opcode::kRead) {
      auto& request = model_.requests.at(id);
      ASSERT_EQ(got.object_id, model_.objects[request.object].id);
      ASSERT_EQ(got.range.begin, model_.waits[request.wait].at * kBlock);
    }
  }
  uint32_t some_request() {
    if (model_.requests.empty() || pick(8) == 0) return static_cast<uint32_t>(pick(model_.next_id + 2));
    return std::next(model_.requests.begin(), static_cast<long>(pick(model_.requests.size())))->first;
  }
  void copen_one() {
    uint32_t id = some_request();
    static const std::pair<const char*, int64_t> kSaid[] = {{"-5", -5}, {"-5000", -5000}, {"abc", 0}};
    std::string text = std::to_string(kSize);
    int64_t size = kSize;
    int parse_error = 0;
    if (pick(4) == 0) {
      auto& said = kSaid[pick(3)];
      text = said.first;
      size = said.second;
      if (text == "abc") parse_error = -EINVAL;
    }
    int expected = model_.copen(id, size, parse_error);
    std::string command = "copen " + std::to_string(id) + "," + text;
    say(command + " -> " + std::to_string(expected));
    int64_t got = W(command);
    ASSERT_EQ(got > 0 ? 0 : got, expected);
  }
  void write_one() {
    if (handles_.empty()) return;
    auto& [handle, fd] = handles_[pick(handles_.size())];
    auto& object = model_.objects[handle.object];
    uint64_t block = pick(kBlocks);
    bool attached = object.incarnation == handle.incarnation &&
                    (object.life == Model::Life::kActive || object.life == Model::Life::kWithdrawing);
    if (attached) object.blocks.insert(block);
    say("pwrite object " + std::to_string(handle.object) + " block " + std::to_string(block));
    ASSERT_EQ(this->handle(fd).pwrite(blocks(kBlock), block * kBlock), attached ? int64_t(kBlock) : -ENOBUFS);
  }
  void complete_one() {
    if (handles_.empty()) return;
    auto& [handle, fd] = handles_[pick(handles_.size())];
    uint32_t id = some_request();
    auto found = model_.requests.find(id);
    bool fits = found != model_.requests.end() && found->second.opcode == Opcode::kRead &&
                found->second.object == handle.object &&
                model_.objects[handle.object].incarnation == handle.incarnation;
    say("complete " + std::to_string(id) + (fits ? "" : " -> EINVAL"));
    if (fits) model_.go_on(model_.take(id).wait, true);
    ASSERT_EQ(cr(fd, id), fits ? 0 : -EINVAL);
  }
  void ensure_one(int i) {
    if (model_.objects[i].life != Model::Life::kActive) return;
    uint64_t begin = pick(kBlocks), end = begin + 1 + pick(kBlocks - begin);
    say("ensure " + std::to_string(i) + " [" + std::to_string(begin) + "," + std::to_string(end) + ")");
    int index = static_cast<int>(model_.waits.size());
    model_.waits.push_back({.object = i, .at = begin, .end = end});
    model_.go_on(index, false);
    real_.push_back({C(*cookie_[i], begin * kBlock, (end - begin) * kBlock), last_wait});
  }
  void cancel_one() {
    std::vector<uint32_t> reads;
    for (auto& [id, request] : model_.requests)
      if (request.opcode == Opcode::kRead) reads.push_back(id);
    if (reads.empty()) return;
    uint32_t id = reads[pick(reads.size())];
    int wait = model_.take(id).wait;
    say("cancel the reader of " + std::to_string(id));
    model_.finish(wait, -EINTR);
    real_[static_cast<size_t>(wait)].wait->cancel();
  }
  void close_one() {
    if (handles_.empty()) return;
    size_t i = pick(handles_.size());
    say("close a handle of object " + std::to_string(handles_[i].first.object));
    model_.close(handles_[i].first);
    daemon.table.erase(handles_[i].second);
    handles_.erase(handles_.begin() + static_cast<long>(i));
  }
  void restore_one() {
    say("restore");
    for (auto& [id, request] : model_.requests) request.fresh = true;
    ASSERT_EQ(W("restore"), ++restores_ == wrong_restore_ ? 8 : 7);
  }
  void relinquish_one(int i, bool retire) {
    auto& object = model_.objects[i];
    if (!cookie_[i] || object.life == Model::Life::kWithdrawing) return;
    say((retire ? "retire " : "relinquish ") + std::to_string(i));
    bool had_object = object.life != Model::Life::kIdle;
    int incarnation = object.incarnation;
    object.retire = retire && object.life == Model::Life::kActive;
    if (object.life == Model::Life::kOpening) {
      model_.lookup_failed(i);
    } else if (object.life == Model::Life::kActive && object.state == Model::State::kOpen) {
      object.life = Model::Life::kWithdrawing;
      model_.add({.opcode = Opcode::kClose, .object = i});
    } else if (had_object) {
      model_.withdrawn(i);
    }
    auto gone = rel(cookie_[i], retire);
    if (had_object) ending_.push_back({i, incarnation, gone});
    forget(cookie_[i]);
  }

  bool comes(const Outcome& outcome) {
    return eventually([&] { return outcome->ready(); }, patience_);
  }
  // The engine has come to where the model is.
  void agree() {
    auto busy = [&] {
      auto caches = engine().listing(0).caches;
      return caches.at(0).requests != model_.requests.size() || in() != model_.deliverable();
    };
    ASSERT_TRUE(eventually([&] { return !busy(); }, patience_))
        << "requests: " << engine().listing(0).caches.at(0).requests << " for " << model_.requests.size()
        << ", deliverable: " << in() << " for " << model_.deliverable();
    std::erase_if(ending_, [&](const Ending& each) {
      if (model_.objects[each.object].incarnation == each.incarnation) return false;
      EXPECT_TRUE(comes(each.gone)) << "a withdrawal of object " << each.object;
      return true;
    });
    for (size_t i = 0; i < real_.size(); ++i) {
      auto& wait = model_.waits[i];
      if (!wait.done) {
        ASSERT_FALSE(real_[i].outcome->ready()) << "wait " << i;
      } else {
        ASSERT_TRUE(comes(real_[i].outcome)) << "wait " << i;
        ASSERT_EQ(real_[i].outcome->wait(), wait.result) << "wait " << i;
        ASSERT_EQ(real_[i].outcome->count(), 1) << "wait " << i;
      }
    }
    for (int i = 0; i < kKeys; ++i) {
      auto& object = model_.objects[i];
      if (!cookie_[i]) continue;
      char letter = object.life == Model::Life::kActive ? 'A' : object.life == Model::Life::kIdle ? '-' : 0;
      if (letter) {
        ASSERT_TRUE(eventually([&] { return cookie_[i]->state() == letter; }, patience_)) << cookie_[i]->state();
      }
      if (letter != 'A') continue;
      for (uint64_t block = 0; block < kBlocks; ++block)
        ASSERT_EQ(cookie_[i]->present({block * kBlock, (block + 1) * kBlock}), object.blocks.contains(block)) << block;
    }
  }
  static std::string name(int i) { return "k" + std::to_string(i); }

  void step(uint32_t seed) {
    random_.seed(seed);
    int i = static_cast<int>(pick(kKeys));
    switch (pick(16)) {
      case 0: return use_one(i);
      case 1:
      case 2:
      case 3: return read_one();
      case 4:
      case 5:
      case 6: return copen_one();
      case 7:
      case 8: return write_one();
      case 9: return complete_one();
      case 10:
      case 11: return ensure_one(i);
      case 12: return pick(2) ? cancel_one() : complete_one();
      case 13: return close_one();
      case 14: return restore_one();
      case 15:
        if (pick(3) == 0) relinquish_one(i, pick(3) == 0);
    }
  }
  // What failed first, and history_ says after which steps; "" for nothing.
  std::string run(const Round& round) {
    ::testing::TestPartResultArray failures;
    {
      ::testing::ScopedFakeTestPartResultReporter catches(
          ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ALL_THREADS, &failures);
      model_ = {};
      history_.clear();
      restores_ = 0;
      BO();
      for (uint32_t seed : round) {
        if (failures.size() > 0) break;
        step(seed);
        if (failures.size() == 0) agree();
      }
      channel.reset();
      for (auto& each : cookie_) each.reset();
      handles_.clear();
      real_.clear();
      ending_.clear();
      last_wait.reset();
      stop();
    }
    std::filesystem::remove_all(dir.path() + "/cache");
    std::filesystem::remove_all(dir.path() + "/maps");
    return failures.size() == 0 ? "" : failures.GetTestPartResult(0).message();
  }
  // The fewest steps that still fail: parts are left out, the large ones first. A part that fails by waiting does not
  // get the patience of a loaded machine.
  Round shrink(Round round) {
    patience_ = std::chrono::seconds(3);
    for (size_t size = (round.size() + 1) / 2; size > 0;) {
      bool smaller = false;
      for (size_t at = 0; at < round.size() && !smaller; at += size) {
        Round part(round.begin(), round.begin() + long(at));
        part.insert(part.end(), round.begin() + long(std::min(round.size(), at + size)), round.end());
        smaller = !run(part).empty();
        if (smaller) round = std::move(part);
      }
      size = smaller ? std::min(size, std::max<size_t>(1, round.size() / 2)) : size / 2;
    }
    patience_ = kPatience;
    return round;
  }
  // What a failure says; "" for none.
  std::string round(unsigned seed) {
    std::mt19937 random(seed);
    Round steps(kSteps);
    for (auto& step : steps) step = static_cast<uint32_t>(random());
    std::string failure = run(steps);
    if (failure.empty()) return failure;
    std::string whole = history_, fewest = run(shrink(steps));
    std::string name = "HYDRANT_MODEL_SEED=" + std::to_string(seed) + ": ";
    if (fewest.empty()) return name + failure + "\nafter these steps (a race: not always):" + whole;
    return name + fewest + "\nafter these steps:" + history_;
  }

  Model model_;
  std::mt19937 random_;
  std::string history_;
  Duration patience_ = kPatience;
  int restores_ = 0, wrong_restore_ = -1;  // the model expects nonsense of that one: a failure, for the test below
  std::shared_ptr<Cookie> cookie_[kKeys];
  std::vector<Real> real_;
  struct Ending {
    int object, incarnation;
    Outcome gone;
  };
  std::vector<Ending> ending_;  // relinquished, and not withdrawn when last looked at
  std::vector<std::pair<Model::Handle, int>> handles_;
};

TEST_F(ModelTest, TheEngineDoesWhatTheModelSays) {
  if (const char* seed = std::getenv("HYDRANT_MODEL_SEED")) {
    std::string failure = round(static_cast<unsigned>(std::atoi(seed)));
    EXPECT_EQ(failure, "");
    return;
  }
  const char* text = std::getenv("HYDRANT_STRESS");
  int rounds = text ? std::max(1, std::atoi(text) / 100) : 20;
  for (int seed = 1; seed <= rounds; ++seed)
    if (std::string failure = round(static_cast<unsigned>(seed)); !failure.empty()) FAIL() << failure;
}

TEST_F(ModelTest, AFailureIsShrunkToItsSteps) {
  wrong_restore_ = 2;
  std::string failure = round(1);
  ASSERT_NE(failure.find("HYDRANT_MODEL_SEED=1"), std::string::npos);
  EXPECT_EQ(failure.substr(failure.find("\nafter")), "\nafter these steps:\n  restore\n  restore") << failure;
}

}  // namespace
}  // namespace hydrant::cachefiles::test
