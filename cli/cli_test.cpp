#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "base/file.h"
#include "base/temporary_directory.h"
#include "base/unix_socket.h"
#include "base/version.h"
#include "cli/daemons.h"
#include "cli/progress_bar.h"
#include "cli/source_argument.h"
#include "cli/verbs.h"

namespace hydrant::cli {
namespace {

using namespace std::chrono_literals;

// Answers every request with the same lines.
struct Parrot : LineSession {
  explicit Parrot(std::vector<std::string> l) : lines(std::move(l)) {}
  std::string answer(std::string_view, LineTalk& talk) override {
    for (size_t i = 0; i + 1 < lines.size(); ++i) talk.send(lines[i]);
    return lines.back();
  }
  std::vector<std::string> lines;
};

struct FakeDaemon {
  FakeDaemon(const std::string& path, std::vector<std::string> lines)
      : server(*LineServer::start(*listen_unix(path, SocketType::kStream), "no",
                                  [lines](auto&) { return std::make_unique<Parrot>(lines); })) {}
  std::unique_ptr<LineServer> server;
};

Result<proto::StatusReply> ask_status(const std::string& path, Patience patience = {}) {
  HYDRANT_TRY(AdminClient client, AdminClient::connect(path, "daemon", Deadline::after(2s)));
  return client.call<proto::StatusReply>(proto::HydrantdRequest(proto::StatusRequest{}), patience);
}

TEST(AdminClient, ProgressArrivesBeforeTheResult) {
  TemporaryDirectory dir;
  FakeDaemon daemon(dir.path() + "/s", {proto::encode_progress({.phase = "stream", .done = 1}),
                                        proto::encode_progress({.phase = "stream", .done = 2}),
                                        proto::encode_reply(proto::StatusReply{.pid = 7})});
  auto client = AdminClient::connect(dir.path() + "/s", "daemon", Deadline::after(2s));
  ASSERT_TRUE(client.has_value());
  std::vector<uint64_t> seen;
  auto reply = client->call<proto::StatusReply>(proto::HydrantdRequest(proto::StatusRequest{}), {},
                                                [&](const proto::Progress& p) { seen.push_back(p.done); });
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->pid, 7);
  EXPECT_EQ(seen, (std::vector<uint64_t>{1, 2}));
}

TEST(AdminClient, TheDaemonsErrorComesBackAsItIs) {
  TemporaryDirectory dir;
  FakeDaemon daemon(dir.path() + "/s", {proto::encode_error({.code = Code::kBusy, .what = "/m: files are open"})});
  auto reply = ask_status(dir.path() + "/s");
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code, Code::kBusy);
  EXPECT_EQ(reply.error().what, "/m: files are open");
}

TEST(AdminClient, AStuckDaemonIsTooSlowAndNamed) {
  TemporaryDirectory dir;
  Fd listener = *listen_unix(dir.path() + "/s", SocketType::kStream);  // accepts nothing
  auto reply = ask_status(dir.path() + "/s", {.silence = 1ms});
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code, Code::kTooSlow);
  EXPECT_EQ(reply.error().what.find("daemon:"), 0u);
}

TEST(AdminClient, ALineThatIsNoAnswerIsInvalid) {
  TemporaryDirectory dir;
  FakeDaemon daemon(dir.path() + "/s", {"what?"});
  EXPECT_EQ(ask_status(dir.path() + "/s").error().code, Code::kInvalid);
}

TEST(Daemons, AreReadyOnlyWhenFetchdIsAttached) {
  TemporaryDirectory dir;
  Daemons daemons{dir.path()};
  ASSERT_TRUE(make_directories(daemons.run_dir()).has_value());
  EXPECT_FALSE(daemons.check_ready().has_value());
  FakeDaemon front(daemons.hydrantd_socket(), {proto::encode_reply(proto::StatusReply{.attached = true})});
  EXPECT_FALSE(daemons.check_ready().has_value());
  {
    FakeDaemon fetcher(daemons.fetchd_socket(), {proto::encode_reply(proto::StatusReply{.attached = false})});
    EXPECT_EQ(daemons.check_ready().error().code, Code::kUnreachable);
  }
  FakeDaemon fetcher(daemons.fetchd_socket(), {proto::encode_reply(proto::StatusReply{.attached = true})});
  EXPECT_TRUE(daemons.check_ready().has_value());
}

TEST(Daemons, AbsenceHasItsOwnExitStatusAndOtherErrorsKeepTheirs) {
  Daemons daemons{"/r"};
  EXPECT_EQ(explain_absence(daemons, {.code = Code::kNotFound, .what = "x"}).status, ExitStatus::kNoDaemon);
  EXPECT_EQ(explain_absence(daemons, {.code = Code::kUnreachable, .what = "x"}).status, ExitStatus::kNoDaemon);
  EXPECT_EQ(explain_absence(daemons, {.code = Code::kTooSlow, .what = "x"}).status, ExitStatus::kTooSlow);
}

TEST(ExitStatuses, AreDistinctForEveryCode) {
  std::set<ExitStatus> seen;
  for (int i = 0; i <= static_cast<int>(Code::kIo); ++i) {
    EXPECT_TRUE(seen.insert(exit_status(static_cast<Code>(i))).second) << i;
  }
  EXPECT_FALSE(seen.contains(ExitStatus::kNotRoot));
  EXPECT_FALSE(seen.contains(ExitStatus::kNoDaemon));
}

TEST(SourceArgument, CredentialsAreFoundThroughTheEnvironmentAndMayBeMissing) {
  TemporaryDirectory dir;
  ::setenv("DOCKER_CONFIG", dir.path().c_str(), 1);
  ::setenv("XDG_RUNTIME_DIR", dir.path().c_str(), 1);
  ::setenv("HOME", dir.path().c_str(), 1);
  EXPECT_EQ(*read_docker_config(), "");
  std::ofstream(dir.path() + "/config.json") << "{\"auths\":{}}";
  EXPECT_EQ(*read_docker_config(), "{\"auths\":{}}");

  // What podman knows is added, and docker's word comes first.
  std::filesystem::create_directories(dir.path() + "/containers");
  std::ofstream(dir.path() + "/containers/auth.json") << R"({"auths":{"a":{"auth":"podmans"},"b":{"auth":"b"}}})";
  std::ofstream(dir.path() + "/config.json") << R"({"auths":{"a":{"auth":"dockers"}},"credHelpers":{"c":"x"}})";
  EXPECT_EQ(*read_docker_config(), R"({"auths":{"a":{"auth":"dockers"},"b":{"auth":"b"}},"credHelpers":{"c":"x"}})");
  std::ofstream(dir.path() + "/containers/auth.json") << "no";
  EXPECT_NE(read_docker_config().error().what.find("containers/auth.json is not a JSON object"), std::string::npos);
  ::setenv("REGISTRY_AUTH_FILE", (dir.path() + "/config.json").c_str(), 1);
  EXPECT_EQ(*read_docker_config(), R"({"auths":{"a":{"auth":"dockers"}},"credHelpers":{"c":"x"}})");
  ::setenv("REGISTRY_AUTH_FILE", "/missing/auth.json", 1);
  EXPECT_EQ(read_docker_config().error().code, Code::kNotFound);
  for (const char* name : {"DOCKER_CONFIG", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"}) ::unsetenv(name);
}

TEST(SourceArgument, ADirectoryIsNamedAsTheKernelNamesIt) {
  TemporaryDirectory dir;
  std::filesystem::create_directories(dir.path() + "/real");
  std::filesystem::create_symlink("real", dir.path() + "/link");
  EXPECT_EQ(resolve_dir(dir.path() + "/link/"), std::filesystem::canonical(dir.path() + "/real").string());
  EXPECT_EQ(resolve_dir(dir.path() + "/gone/x/../y/"), dir.path() + "/gone/y");
}

TEST(Progress, ALineShowsPhaseShareAndSizesWithinTheTerminal) {
  proto::Progress progress{.phase = "stream", .done = 41'200'000, .total = 79'000'000, .layers = 6};
  EXPECT_EQ(progress_line(progress, 200), "stream   [############............]  52 %  41.2 MB of 79.0 MB, 6 layers");
  EXPECT_EQ(progress_line(progress, 10).size(), 10u);
  EXPECT_EQ(progress_line({.phase = "resolve"}, 80), "resolve ");
}

TEST(Progress, SizesAreRoundedAsPeopleReadThem) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(999), "999 B");
  EXPECT_EQ(human_size(1000), "1.0 kB");
  EXPECT_EQ(human_size(999'999), "1.0 MB");
  EXPECT_EQ(human_size(UINT64_MAX), "18.4 EB");
}

TEST(Version, IsTheOneTheBuildCarries) { EXPECT_EQ(kVersion, HYDRANT_BUILD_VERSION); }

TEST(Mount, ADirectoryThatIsMissingOrNoneIsRefusedBeforeAnyDaemonIsAsked) {
  TemporaryDirectory dir;
  CommonOptions common{.root = dir.path() + "/root"};
  auto missing = run_mount(common, {.arguments = {"localhost:1/x", dir.path() + "/gone"}});
  EXPECT_EQ(missing.error().status, ExitStatus::kNotFound);
  std::ofstream(dir.path() + "/file") << "x";
  auto file = run_mount(common, {.arguments = {"localhost:1/x", dir.path() + "/file"}});
  EXPECT_EQ(file.error().status, ExitStatus::kUsage);
  EXPECT_FALSE(std::filesystem::exists(common.root));
}

TEST(Mount, WithoutDaemonsAndWithoutStartingThemSaysSo) {
  TemporaryDirectory dir;
  CommonOptions common{.root = dir.path() + "/root"};
  auto outcome = run_mount(common, {.arguments = {"localhost:1/x", dir.path()}, .no_start = true});
  EXPECT_EQ(outcome.error().status, ExitStatus::kNoDaemon);
}

}  // namespace
}  // namespace hydrant::cli
