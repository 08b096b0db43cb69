// Whoever holds a write handle cannot put a byte before a reader that does not match the object's leaves.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/file.h"
#include "cachefiles/harness.h"
#include "proto/leaf_table.h"

namespace hydrant::cachefiles::test {
namespace {

constexpr uint64_t kGranule = 64 << 10;
constexpr uint64_t kSize = 5 * kGranule + 3 * kBlock;  // the last granule is short

Buffer content(uint64_t size = kSize) {
  Buffer out(size);
  for (uint64_t i = 0; i < size; ++i) out[i] = std::byte(1 + (i / kBlock * 7 + i) % 251);
  return out;
}

// Shared with children.
class MappedPages {
 public:
  explicit MappedPages(size_t size)
      : memory_(
            static_cast<std::byte*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))),
        size_(size) {
    HYDRANT_CHECK(memory_ != MAP_FAILED, "no memory");
  }
  MappedPages(const MappedPages&) = delete;
  ~MappedPages() { ::munmap(memory_, size_); }
  MutableBytes bytes() const { return {memory_, size_}; }

 private:
  std::byte* const memory_;
  const size_t size_;
};

class VerifyTest : public EngineTest {
 protected:
  void SetUp() override {
    options.leaves = [this](const Digest& root) -> Result<std::string> {
      auto found = tables.find(root.hex());
      if (found == tables.end()) return fail(Code::kNotFound, "no such leaves");
      return found->second;
    };
    EngineTest::SetUp();
  }

  proto::MerkleProof proof_of(Bytes bytes, uint64_t granule = kGranule) {
    proto::MerkleShape shape{bytes.size(), static_cast<uint32_t>(granule), 1};
    std::vector<Digest> leaves;
    for (uint64_t i = 0; i < shape.leaves(); ++i) {
      ByteRange range = shape.granule_range(i);
      leaves.push_back(proto::leaf_digest(bytes.subspan(range.begin, range.size())));
    }
    Digest root = proto::merkle_root(leaves, shape);
    tables[root.hex()] = as_text(proto::encode_leaf_table(shape, root, leaves));
    return {shape, root};
  }
  Opened proven(const std::string& key = "key") {
    auto o = opened(key, kSize);
    EXPECT_EQ(o.cookie->prove(proof_of(good)), 0);
    return o;
  }
  int64_t write(Opened& o, Bytes bytes, uint64_t begin, uint64_t end) {
    return handle(o.fd).pwrite(bytes.subspan(begin, end - begin), begin);
  }
  uint64_t counter(std::string_view name) {
    for (auto& [key, value] : engine().listing().counters)
      if (key == name) return value;
    ADD_FAILURE() << name;
    return 0;
  }
  std::string backing() {
    auto paths = files();
    EXPECT_EQ(paths.size(), 1u);
    return dir.path() + "/" + paths.at(0);
  }
  void flip(uint64_t offset) {
    Fd fd(::open(backing().c_str(), O_RDWR));
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(byte ^ 0x10);
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    ASSERT_EQ(::fdatasync(fd.get()), 0);
  }
  // What a killed process leaves: everything but the mark.
  void die() {
    stop();
    ASSERT_EQ(::unlink((dir.path() + "/maps/clean").c_str()), 0);
  }
  std::string expected(uint64_t begin, uint64_t size) { return std::string(as_text(Bytes(good).subspan(begin, size))); }

  const Buffer good = content();
  std::map<std::string, std::string> tables;  // by root
};

TEST_F(VerifyTest, WhatMatchesItsLeafBecomesPresent) {
  BO();
  auto o = proven();
  EXPECT_TRUE(o.cookie->stat().proven);
  EXPECT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  EXPECT_TRUE(o.cookie->present({0, kSize}));
  EXPECT_EQ(read_back(*o.cookie, 0, kSize), expected(0, kSize));
  EXPECT_EQ(counter("verify.written"), 6u);
  EXPECT_EQ(counter("verify.refused"), 0u);
}

TEST_F(VerifyTest, AGranuleThatDoesNotMatchIsRefusedAndWhatStandsBeforeItIsKept) {
  BO();
  auto o = proven();
  Buffer bad = good;
  bad[2 * kGranule + 5] ^= std::byte(1);
  EXPECT_EQ(write(o, bad, 0, 4 * kGranule), int64_t{2 * kGranule}) << "short, as a disk that is full";
  EXPECT_EQ(write(o, bad, 2 * kGranule, 4 * kGranule), -EIO);
  EXPECT_TRUE(o.cookie->present({0, 2 * kGranule}));
  EXPECT_FALSE(o.cookie->present({2 * kGranule, 2 * kGranule + kBlock}));
  EXPECT_EQ(counter("verify.refused"), 2u);
  EXPECT_EQ(write(o, good, 2 * kGranule, kSize), int64_t(kSize - 2 * kGranule)) << "the right bytes are welcome";
  EXPECT_EQ(read_back(*o.cookie, 0, kSize), expected(0, kSize));
}

TEST_F(VerifyTest, AHandleTellsWhetherItsWritesAreProven) {
  BO();
  auto plain = opened("plain", kSize), o = opened("key", kSize);
  EXPECT_EQ(handle(plain.fd).ioctl(proto::kProvesWrites, 0), 0);
  EXPECT_EQ(handle(o.fd).ioctl(proto::kProvesWrites, 0), 0);
  EXPECT_EQ(o.cookie->prove(proof_of(good)), 0);
  EXPECT_EQ(handle(o.fd).ioctl(proto::kProvesWrites, 0), 1);
}

TEST_F(VerifyTest, AReaderGetsAnErrorWhenTheDaemonLies) {
  BO();
  auto o = proven();
  auto read = C(*o.cookie, kBlock, kBlock);
  auto asked = next();
  EXPECT_EQ(handle(o.fd).pwrite(blocks(kGranule, 'z'), 0), -EIO);
  EXPECT_EQ(cr(o.fd, asked.msg_id), 0);
  EXPECT_EQ(read->wait(), -EIO);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
}

TEST_F(VerifyTest, WhatIsPresentIsNotWrittenAgain) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  EXPECT_EQ(handle(o.fd).pwrite(blocks(kGranule, 'z'), 0), int64_t{kGranule});
  EXPECT_EQ(handle(o.fd).pwrite(blocks(kBlock, 'z'), kGranule), int64_t{kBlock});
  EXPECT_EQ(read_back(*o.cookie, 0, kSize), expected(0, kSize));
}

TEST_F(VerifyTest, AGranuleInPiecesIsPresentWhenItIsComplete) {
  BO();
  auto o = proven();
  for (uint64_t at : {3 * kBlock, uint64_t{0}, 8 * kBlock}) EXPECT_EQ(write(o, good, at, at + kBlock), int64_t{kBlock});
  EXPECT_EQ(write(o, good, kBlock, 3 * kBlock), int64_t{2 * kBlock});
  EXPECT_EQ(write(o, good, 4 * kBlock, 8 * kBlock), int64_t{4 * kBlock});
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  // The rest, and the beginning of the next one.
  EXPECT_EQ(write(o, good, 9 * kBlock, kGranule + kBlock), int64_t(kGranule - 8 * kBlock));
  EXPECT_TRUE(o.cookie->present({0, kGranule}));
  EXPECT_FALSE(o.cookie->present({kGranule, kGranule + kBlock}));
  EXPECT_EQ(read_back(*o.cookie, 0, kGranule), expected(0, kGranule));
}

TEST_F(VerifyTest, PiecesThatDoNotMakeTheGranuleLeaveNothingBehind) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kGranule - kBlock), int64_t(kGranule - kBlock));
  EXPECT_EQ(handle(o.fd).pwrite(blocks(kBlock, 'z'), kGranule - kBlock), -EIO);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  ASSERT_EQ(write(o, good, kGranule - kBlock, kGranule), int64_t{kBlock});
  EXPECT_FALSE(o.cookie->present({0, kBlock})) << "the other pieces were refused with the bad one";
  ASSERT_EQ(write(o, good, 0, kGranule), int64_t{kGranule});
  EXPECT_EQ(read_back(*o.cookie, 0, kGranule), expected(0, kGranule));
}

// The bytes stand in memory that the client shares and goes on writing to.
TEST_F(VerifyTest, BytesThatChangeWhileTheyAreWrittenAreHashedAsTheyAreKept) {
  BO();
  auto o = proven();
  // Of another process, as a user daemon is.
  MappedPages shared(kGranule);
  std::ranges::copy(Bytes(good).first(kGranule), shared.bytes().begin());
  const pid_t liar = ::fork();
  ASSERT_GE(liar, 0);
  if (liar == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    volatile std::byte* at = shared.bytes().data() + 100;
    for (;;) {
      *at = good[100] ^ std::byte(0xff);
      *at = good[100];
    }
  }
  for (int i = 0; i < 300; ++i) {
    const int64_t done = write(o, shared.bytes(), 0, kGranule);
    EXPECT_TRUE(done == -EIO || done == int64_t{kGranule});
    if (done > 0) {
      EXPECT_EQ(read_back(*o.cookie, 0, kGranule), expected(0, kGranule));
      o.cookie->discard(0);
      o.cookie->discard(UINT64_MAX);
    }
    if (HasFailure()) break;
  }
  ::kill(liar, SIGKILL);
  ::waitpid(liar, nullptr, 0);
}

TEST_F(VerifyTest, TheProofIsRequiredOverARestart) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kGranule), int64_t{kGranule});
  forget(o.cookie);
  stop();
  BO();
  auto again = opened("key", kSize);
  EXPECT_TRUE(again.cookie->stat().proven) << "nobody has said so anew";
  EXPECT_TRUE(again.cookie->present({0, kGranule})) << "the end was clean";
  EXPECT_EQ(counter("verify.found"), 0u);
  EXPECT_EQ(handle(again.fd).pwrite(blocks(kGranule, 'z'), kGranule), -EIO);
}

TEST_F(VerifyTest, AnObjectThatIsNotProvenYetMustProveWhatItHas) {
  BO();
  auto o = opened("key", kSize);
  Buffer mixed = good;
  mixed[kGranule] ^= std::byte(1);
  ASSERT_EQ(write(o, mixed, 0, kSize), int64_t{kSize});
  ASSERT_EQ(o.cookie->prove(proof_of(good)), 0);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  EXPECT_EQ(C(*o.cookie, 0, kGranule)->wait(), 0) << "it is here, and nobody need be asked";
  EXPECT_EQ(read_back(*o.cookie, 0, kGranule), expected(0, kGranule));
  auto read = C(*o.cookie, kGranule, kBlock);
  auto asked = next();
  EXPECT_EQ(counter("verify.damaged"), 1u);
  ASSERT_EQ(write(o, good, kGranule, 2 * kGranule), int64_t{kGranule});
  cr(o.fd, asked.msg_id);
  EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, 0, 2 * kGranule), expected(0, 2 * kGranule));
}

TEST_F(VerifyTest, AfterAnUncleanEndBytesProveThemselvesBeforeTheyAreRead) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  ASSERT_TRUE(engine().flush());
  forget(o.cookie);
  die();
  flip(kGranule + 7);
  BO();
  auto again = opened("key", kSize);
  EXPECT_FALSE(again.cookie->present({0, kBlock}));
  EXPECT_EQ(C(*again.cookie, 0, kGranule)->wait(), 0);
  auto read = C(*again.cookie, kGranule, kBlock);
  auto asked = next();
  EXPECT_EQ(asked.range.begin, kGranule);
  ASSERT_EQ(write(again, good, kGranule, 2 * kGranule), int64_t{kGranule});
  cr(again.fd, asked.msg_id);
  EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(C(*again.cookie, 2 * kGranule, kSize - 2 * kGranule)->wait(), 0);
  EXPECT_EQ(read_back(*again.cookie, 0, kSize), expected(0, kSize));
  EXPECT_EQ(counter("verify.found"), 6u);
  EXPECT_EQ(counter("verify.damaged"), 1u);
  ASSERT_TRUE(engine().flush());
  EXPECT_TRUE(again.cookie->complete()) << "durable again";
}

// The next end may be clean: that says nothing of what the unclean one left.
TEST_F(VerifyTest, WhatWasNotHashedAfterAnUncleanEndStaysInDoubt) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  ASSERT_TRUE(engine().flush());
  forget(o.cookie);
  die();
  flip(kGranule + 7);
  BO();
  stop();
  BO();
  {
    auto again = opened("key", kSize);
    EXPECT_EQ(C(*again.cookie, 0, kGranule)->wait(), 0) << "it proves itself";
    EXPECT_FALSE(again.cookie->present({kGranule, kGranule + kBlock}));
    forget(again.cookie);
  }
  stop();
  BO();
  auto again = opened("key", kSize);
  EXPECT_TRUE(again.cookie->present({0, kGranule}));
  EXPECT_FALSE(again.cookie->present({kGranule, kGranule + kBlock}));
  EXPECT_EQ(C(*again.cookie, 2 * kGranule, kSize - 2 * kGranule)->wait(), 0) << "it is not fetched again";
  auto read = C(*again.cookie, kGranule, kBlock);
  auto asked = next();
  ASSERT_EQ(write(again, good, kGranule, 2 * kGranule), int64_t{kGranule});
  cr(again.fd, asked.msg_id);
  EXPECT_EQ(read->wait(), 0);
  ASSERT_TRUE(engine().flush());
  EXPECT_TRUE(again.cookie->complete());
  for (auto& entry : std::filesystem::recursive_directory_iterator(dir.path() + "/maps"))
    EXPECT_NE(entry.path().extension(), ".unproven") << "no doubt is left";
}

// A map without leaves is worth what it always was: it names only what is durable.
TEST_F(VerifyTest, AfterAnUncleanEndObjectsWithoutAProofKeepWhatIsDurable) {
  BO();
  auto o = opened("key", kSize);
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  ASSERT_TRUE(engine().flush());
  forget(o.cookie);
  die();
  BO();
  EXPECT_TRUE(opened("key", kSize).cookie->present({0, kSize}));
}

TEST_F(VerifyTest, TheScrubFindsFlippedBitsAndTheyAreFetchedAnew) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  ASSERT_TRUE(engine().flush());
  flip(3 * kGranule + 1);
  auto first = o.cookie->scrub(0, 2 * kGranule);
  EXPECT_EQ(first.next, 2 * kGranule);
  EXPECT_TRUE(first.damaged.empty());
  auto rest = o.cookie->scrub(first.next, UINT64_MAX);
  EXPECT_EQ(rest.next, UINT64_MAX);
  ASSERT_EQ(rest.damaged.size(), 1u);
  EXPECT_EQ(rest.damaged[0], (ByteRange{3 * kGranule, 4 * kGranule}));
  EXPECT_EQ(counter("verify.damaged"), 1u);
  char byte;
  EXPECT_EQ(o.cookie->read(std::as_writable_bytes(std::span(&byte, 1)), 3 * kGranule), -ESTALE);
  auto read = C(*o.cookie, 3 * kGranule, kBlock);
  auto asked = next();
  ASSERT_EQ(write(o, good, 3 * kGranule, 4 * kGranule), int64_t{kGranule});
  cr(o.fd, asked.msg_id);
  EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, 0, kSize), expected(0, kSize));
  EXPECT_TRUE(o.cookie->scrub(0, UINT64_MAX).damaged.empty());
}

TEST_F(VerifyTest, TheScrubProvesWhatNobodyHasAskedFor) {
  BO();
  auto o = opened("key", kSize);
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  ASSERT_EQ(o.cookie->prove(proof_of(good)), 0);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  o.cookie->scrub(0, UINT64_MAX);
  ASSERT_TRUE(engine().flush());
  EXPECT_TRUE(o.cookie->complete());
}

TEST_F(VerifyTest, LeavesThatAreMissingOrOfAnotherRootAreNoProof) {
  BO();
  auto o = opened("key", kSize);
  auto proof = proof_of(good);
  auto other = proof_of(content(kSize - kBlock));
  std::string table = tables[proof.root.hex()];
  tables.clear();
  EXPECT_EQ(o.cookie->prove(proof), -ENODATA);
  table.back() = static_cast<char>(table.back() ^ 1);
  tables[proof.root.hex()] = table;
  EXPECT_EQ(o.cookie->prove(proof), -ENODATA);
  EXPECT_EQ(o.cookie->prove(other), -ESTALE) << "of another size";
  EXPECT_FALSE(o.cookie->stat().proven);
  ASSERT_EQ(o.cookie->prove(proof_of(good)), 0);
  Buffer different = good;
  different[0] ^= std::byte(1);
  EXPECT_EQ(o.cookie->prove(proof_of(different)), -EEXIST) << "a mount relies on the first";
  EXPECT_EQ(o.cookie->resize(kSize - kBlock), -EPERM);
}

// What hydrantd does for mounts that outlived it: the proof is there before the daemon has answered, and a daemon that
// says another size gets no reader.
TEST_F(VerifyTest, AProofThatCameFirstFailsTheLookupOfWhatCannotBeProven) {
  BO();
  auto made = cookie("key");
  ASSERT_EQ(made->prove(proof_of(good)), 0);
  auto ready = use(*made);
  auto open = next();
  ASSERT_GT(W(copen(open.msg_id, static_cast<int64_t>(kSize + kGranule))), 0);
  EXPECT_EQ(ready->wait(), -ENOBUFS);

  auto fine = cookie("other");
  auto proof = proof_of(good);
  auto early = use(*fine);
  auto second = next();
  while (second.opcode != proto::Opcode::kOpen) second = next();
  ASSERT_EQ(fine->prove(proof), 0) << "while it is looked up";
  ASSERT_GT(W(copen(second.msg_id, static_cast<int64_t>(kSize))), 0);
  EXPECT_EQ(early->wait(), 0);
  EXPECT_TRUE(fine->stat().proven);
  EXPECT_EQ(handle(second.fd).pwrite(blocks(kGranule, 'z'), 0), -EIO);
}

TEST_F(VerifyTest, AnotherRootAtALaterMountMakesEverythingProveItself) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kSize), int64_t{kSize});
  forget(o.cookie);
  stop();
  BO();
  auto proof = proof_of(good, 2 * kGranule);
  auto again = cookie("key");
  ASSERT_EQ(again->prove(proof), 0) << "nobody relies on the first any more";
  auto ready = use(*again);
  ASSERT_GT(W(copen(next().msg_id, static_cast<int64_t>(kSize))), 0);
  ASSERT_EQ(ready->wait(), 0);
  EXPECT_FALSE(again->present({0, kBlock}));
  EXPECT_EQ(C(*again, 0, kSize)->wait(), 0);
  EXPECT_EQ(read_back(*again, 0, kSize), expected(0, kSize));
  EXPECT_EQ(again->prove(proof_of(good)), -EEXIST);
}

TEST_F(VerifyTest, ATableThatIsDamagedIsSaidAndBroughtAnew) {
  BO();
  auto o = proven();
  std::string table;
  for (auto& entry : std::filesystem::recursive_directory_iterator(dir.path() + "/maps"))
    if (entry.path().extension() == ".leaves") table = entry.path();
  ASSERT_FALSE(table.empty());
  Fd fd(::open(table.c_str(), O_RDWR));
  ASSERT_EQ(::pwrite(fd.get(), "x", 1, 70), 1);
  EXPECT_EQ(write(o, good, 0, kGranule), -EIO) << "the bytes are right, but nothing proves them";
  forget(o.cookie);
  stop();
  BO();
  auto again = opened("key", kSize);
  EXPECT_FALSE(again.cookie->stat().proven);
  ASSERT_EQ(again.cookie->prove(proof_of(good)), 0);
  EXPECT_EQ(write(again, good, 0, kGranule), int64_t{kGranule});
}

TEST_F(VerifyTest, WithoutVerificationProofsAreForgottenForGood) {
  BO();
  auto o = proven();
  ASSERT_EQ(write(o, good, 0, kGranule), int64_t{kGranule});
  forget(o.cookie);
  stop();
  options.verify = false;
  BO();
  auto loose = opened("key", kSize);
  EXPECT_EQ(loose.cookie->prove(proof_of(good)), -EOPNOTSUPP);
  EXPECT_TRUE(loose.cookie->present({0, kGranule}));
  EXPECT_EQ(handle(loose.fd).pwrite(blocks(kGranule, 'z'), kGranule), int64_t{kGranule});
  forget(loose.cookie);
  stop();
  options.verify = true;
  BO();
  auto again = opened("key", kSize);
  ASSERT_EQ(again.cookie->prove(proof_of(good)), 0);
  auto read = C(*again.cookie, kGranule, kBlock);
  next();
  EXPECT_FALSE(again.cookie->present({kGranule, kGranule + kBlock})) << "what was written meanwhile proves nothing";
}

TEST_F(VerifyTest, TheLeavesGoWithTheObject) {
  BO();
  auto o = proven();
  auto gone = rel(o.cookie, true);
  next();
  gone->wait();
  for (auto& entry : std::filesystem::recursive_directory_iterator(dir.path() + "/maps"))
    EXPECT_FALSE(entry.is_regular_file()) << entry.path();
}

// Metadata is proven by its digest once it is here; the kernel reads the file past us.
TEST_F(VerifyTest, WhatIsReadPastUsIsNotWrittenAgain) {
  BO();
  auto o = opened("key", kSize);
  ASSERT_EQ(write(o, good, 0, kGranule), int64_t{kGranule});
  ASSERT_TRUE(o.cookie->backing_file());
  EXPECT_EQ(handle(o.fd).pwrite(blocks(2 * kGranule, 'z'), 0), int64_t{2 * kGranule});
  EXPECT_EQ(read_back(*o.cookie, 0, kGranule), expected(0, kGranule));
  EXPECT_EQ(read_back(*o.cookie, kGranule, 1), "z");
  forget(o.cookie);
  stop();
  BO();
  auto again = opened("key", kSize);
  EXPECT_EQ(handle(again.fd).pwrite(blocks(kBlock, 'y'), 0), int64_t{kBlock});
  EXPECT_EQ(read_back(*again.cookie, 0, kGranule), expected(0, kGranule)) << "in this boot its reader may be there";
}

// Writers of right and of wrong bytes, readers, somebody who makes room and the scrub, all at once.
TEST_F(VerifyTest, NothingWrongIsReadWhateverGoesOnAtOnce) {
  constexpr int kEnough = 500;
  BO();
  auto o = opened("key", kSize);
  std::atomic<bool> over{false};
  int wrong = 0, right = 0;
  std::vector<std::jthread> others;
  auto repeat = [&](auto work) {
    others.emplace_back([&over, work] {
      for (std::minstd_rand random(1); !over;) work(random);
    });
  };
  ASSERT_EQ(o.cookie->prove(proof_of(good)), 0);
  repeat([&](auto& random) {
    const uint64_t at = random() % 6 * kGranule;
    (void)handle(o.fd).pwrite(blocks(std::min(kGranule, kSize - at), 'z'), at);
  });
  repeat([&](auto& random) {
    const uint64_t at = random() % (kSize / kBlock) * kBlock;
    (void)write(o, good, at, std::min(kSize, at + kGranule));
    (void)write(o, good, 0, kSize);
  });
  repeat([&](auto&) {
    o.cookie->discard(UINT64_MAX);
    o.cookie->scrub(0, UINT64_MAX);
  });
  std::minstd_rand random(7);
  Buffer out(kBlock);
  EXPECT_TRUE(eventually([&] {
    const uint64_t at = random() % (kSize / kBlock) * kBlock;
    if (o.cookie->read(out, at) == int64_t{kBlock})
      ++(std::ranges::equal(out, Bytes(good).subspan(at, kBlock)) ? right : wrong);
    return right >= kEnough || wrong > 0;
  }));
  over = true;
  others.clear();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(counter("verify.damaged"), 0u);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
