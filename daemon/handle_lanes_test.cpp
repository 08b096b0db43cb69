// Handles that are numbers, and messages of several frames.
#include <sys/socket.h>

#include "daemon/channel_harness.h"

namespace hydrant::daemon {
namespace {

using namespace test;

class LanesTest : public ChannelServerTest {
 protected:
  // The client's end of a lane.
  RawClient lane(RawClient& control) {
    auto pair = socket_pair(SocketType::kSeqPacket).value();
    EXPECT_EQ(control.ask(ch::encode_lane(60), {}, {pair.second.get()}), 0);
    return RawClient(std::move(pair.first));
  }
  // The number of a handle of `object`.
  uint32_t open_number(RawClient& control, std::shared_ptr<FakeObject> object) {
    standing_->push_open(0, std::move(object));
    control.send(ch::encode_read(50, {1024, 1}, true));
    auto reply = control.receive();
    EXPECT_TRUE(reply && !reply->fd) << "no descriptor";
    return static_cast<uint32_t>(proto::decode_message(reply->payload)->fd);
  }
  static Buffer frame(uint32_t handle, ch::Head head, Bytes body = {}) {
    head.address(handle);
    Buffer out = to_buffer(head.bytes());
    append(out, body);
    return out;
  }
  static Buffer pwrite(uint32_t handle, uint64_t tag, uint64_t offset, std::string_view text,
                       std::optional<uint32_t> msg_id = {}, uint16_t flags = 0) {
    ch::Pwrite pwrite{.offset = offset, .length = text.size(), .data = as_bytes(text)};
    if (msg_id) pwrite.msg_id = *msg_id;
    if (msg_id) flags |= ch::kComplete;
    return frame(handle, ch::encode_pwrite(tag, pwrite, flags), pwrite.data);
  }
  // The frames of the next message.
  static std::vector<ch::Header> answers(RawClient& lane, std::vector<int32_t>* completions = nullptr) {
    std::vector<ch::Header> out;
    EXPECT_TRUE(wait_fd(lane.fd(), POLLIN, soon()));
    Buffer buffer(ch::kMaxFrame);
    Packet packet;
    if (receive_packet(lane.fd(), buffer, &packet) <= 0) return out;
    for (Bytes rest = Bytes(buffer).first(packet.size); auto each = ch::take_frame(rest);) {
      out.push_back(each->header);
      auto completion = ch::decode_completion(*each);
      if (completions && completion) completions->push_back(*completion);
    }
    return out;
  }
};

std::vector<uint32_t> completed(FakeObject& object) {
  return object.locked([](FakeObject& o) { return o.completed; });
}

TEST_F(LanesTest, AHandleIsANumberAndManyShareALane) {
  RawClient control = attached(ch::kLanes);
  RawClient data = lane(control);
  auto first = std::make_shared<FakeObject>(), second = std::make_shared<FakeObject>();
  uint32_t one = open_number(control, first), two = open_number(control, second);
  ASSERT_NE(one, two);
  EXPECT_EQ(server_->open_handles(), 2u);
  Buffer message = pwrite(one, 1, 0, "first", 7);
  append(message, pwrite(two, 2, 4096, "second", 8));
  append(message, pwrite(one, 3, 8192, "third"));
  append(message, frame(two, ch::encode_ioctl(4, {.argument = 9, .number = proto::kReadComplete})));
  data.raw(message);
  std::vector<int32_t> completions;
  auto replies = answers(data, &completions);
  ASSERT_EQ(replies.size(), 4u) << "one message answers one message";
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(replies[i].tag, i + 1);
  EXPECT_EQ(replies[0].result, 5);
  EXPECT_EQ(replies[1].result, 6);
  EXPECT_EQ(replies[2].result, 5);
  EXPECT_EQ(replies[3].result, 0);
  EXPECT_EQ(completions, (std::vector<int32_t>{0, 0}));
  EXPECT_EQ(completed(*first), (std::vector<uint32_t>{7}));
  EXPECT_EQ(completed(*second), (std::vector<uint32_t>{8, 9}));
  EXPECT_EQ(first->locked([](FakeObject& o) { return Buffer(o.writes.at(8192)); }), to_buffer(as_bytes("third")));
}

TEST_F(LanesTest, ADropIsTheLastClose) {
  RawClient control = attached(ch::kLanes);
  RawClient data = lane(control);
  auto object = std::make_shared<FakeObject>();
  uint32_t number = open_number(control, object);
  Buffer message = pwrite(number, 1, 0, "x");
  append(message, frame(number, ch::encode_drop(0)));
  append(message, pwrite(number, 2, 0, "y", 3));
  append(message, pwrite(number, 4, 0, "z", {}, ch::kNoAnswer));
  data.raw(message);
  auto replies = answers(data);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].result, 1);
  EXPECT_EQ(replies[1].result, -EBADF) << "there is no such handle any more";
  EXPECT_EQ(object->open_handles, 0);
  EXPECT_EQ(server_->open_handles(), 0u);
}

TEST_F(LanesTest, AFailureIsItsOwnFramesAlone) {
  RawClient control = attached(ch::kLanes);
  RawClient data = lane(control);
  auto object = std::make_shared<FakeObject>();
  uint32_t number = open_number(control, object);
  Buffer message = pwrite(number, 1, 100, "unaligned", 1);
  append(message, frame(number, ch::encode_pwrite(2, {.offset = 0, .length = 9, .window = 3}, ch::kFromWindow)));
  append(message, pwrite(number, 3, 0, "good", 2));
  data.raw(message);
  auto replies = answers(data);
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(replies[0].result, -ENOBUFS);
  EXPECT_EQ(replies[1].result, -EFAULT);
  EXPECT_EQ(replies[2].result, 4);
  EXPECT_EQ(completed(*object), (std::vector<uint32_t>{2}));
}

TEST_F(LanesTest, WhatIsNoFrameEndsTheLaneAndNothingElse) {
  RawClient control = attached(ch::kLanes);
  auto object = std::make_shared<FakeObject>();
  uint32_t number = open_number(control, object);
  std::vector<Buffer> bad = {Buffer(23), frame(number, ch::encode_poll(1, {}, false)), pwrite(number, 1, 0, "x")};
  store_le<uint32_t>(bad[2].data() + 4, 0x7fffffff);
  bad.push_back(pwrite(number, 1, 0, "x"));
  store_le<int64_t>(bad[3].data() + 16, -1);
  bad.push_back(frame(number, ch::encode_drop(1), as_bytes("?")));
  store_le<uint32_t>(bad[4].data() + 4, uint32_t(bad[4].size()));
  for (auto& message : bad) {
    RawClient data = lane(control);
    Buffer behind = pwrite(number, 1, 0, "before");
    append(behind, message);
    data.raw(behind);
    while (data.receive()) continue;
  }
  RawClient data = lane(control);
  data.raw(pwrite(number, 1, 0, "still here"));
  EXPECT_EQ(answers(data).at(0).result, 10);
  RawClient passing = lane(control);
  passing.raw(pwrite(number, 1, 0, "x"), {control.fd()});
  while (passing.receive()) continue;
  EXPECT_EQ(server_->closed(CloseReason::kDescriptors), 1u);
}

TEST_F(LanesTest, LanesAreForThoseWhoAskedForThem) {
  auto pair = socket_pair(SocketType::kSeqPacket).value();
  auto stream = socket_pair(SocketType::kStream).value();
  RawClient control = attached();
  EXPECT_EQ(control.ask(ch::encode_lane(1), {}, {pair.second.get()}), -EINVAL);
  control.disconnect();
  ASSERT_TRUE(eventually([&] { return !server_->attached(); }));
  RawClient with = attached(ch::kLanes);
  EXPECT_EQ(with.ask(ch::encode_lane(1), {}, {stream.second.get()}), -EPROTOTYPE);
  std::vector<RawClient> lanes;
  for (unsigned i = 0; i < ch::kMaxLanes; ++i) lanes.push_back(lane(with));
  EXPECT_EQ(with.ask(ch::encode_lane(1), {}, {pair.second.get()}), -EINVAL);
  with.send(ch::encode_lane(2));
  EXPECT_TRUE(ends_with(with, CloseReason::kDescriptors));
}

TEST_F(LanesTest, TheEndOfTheConnectionClosesItsHandles) {
  auto object = std::make_shared<FakeObject>();
  RawClient control = attached(ch::kLanes);
  RawClient data = lane(control);
  for (int i = 0; i < 100; ++i) open_number(control, object);
  EXPECT_EQ(object->open_handles, 100);
  control.disconnect();
  ASSERT_TRUE(eventually([&] { return !server_->attached(); }));
  EXPECT_EQ(object->open_handles, 0) << "before the next one is let in";
  EXPECT_FALSE(data.receive());
  EXPECT_EQ(server_->open_handles(), 0u);
}

TEST_F(LanesTest, InOpenModeHandlesLiveAsLongAsTheirLanes) {
  auto object = std::make_shared<FakeObject>();
  RawClient control = connect();
  ASSERT_EQ(control.hello(ch::Mode::kOpen, ch::kLanes), 0);
  RawClient data = lane(control);
  engine_.opened()->push_open(0, object);
  control.send(ch::encode_read(50, {1024, 1}, true));
  auto number = static_cast<uint32_t>(proto::decode_message(control.receive()->payload)->fd);
  control.disconnect();
  ASSERT_TRUE(eventually([&] { return !engine_.opened(); }));
  data.raw(pwrite(number, 1, 0, "late"));
  EXPECT_EQ(answers(data).at(0).result, 4);
  data.disconnect();
  EXPECT_TRUE(eventually([&] { return object->open_handles == 0 && server_->users() == 0; }));
}

TEST_F(LanesTest, MessagesAreDeliveredAndCommandsTakenTogether) {
  RawClient control = attached(ch::kLanes);
  for (uint32_t i = 0; i < 20; ++i) standing_->push_read(i, {i * 4096ull, (i + 1) * 4096ull});
  Buffer message = frame(0, ch::encode_read(50, {1024, 20}, true));
  append(message, frame(0, ch::encode_bytes(ch::Op::kWrite, 51, 4), as_bytes("bind")));
  control.raw(message);
  std::vector<ch::Header> replies;
  while (replies.size() < 21) {
    auto more = answers(control);
    ASSERT_FALSE(more.empty());
    replies.insert(replies.end(), more.begin(), more.end());
  }
  EXPECT_EQ(std::ranges::count(replies, 50u, &ch::Header::tag), 20);
  EXPECT_EQ(std::ranges::count(replies, 51u, &ch::Header::tag), 1);
}

}  // namespace
}  // namespace hydrant::daemon
