#include <future>

#include "fetch/prepare_fixture.h"

namespace hydrant::fetch {
namespace {

TEST_F(PrepareTest, StreamsEachLayerOnceFillsItsDeviceAndIsThenLazy) {
  Layer lower = add_layer(image::fixture::many_files(1));
  Layer upper = add_layer({{"etc/name", to_buffer(as_bytes("upper"))}});
  add_image("1", {lower, upper});
  auto first = prepare();
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ(first->devices, (std::vector<std::string>{lower.device(), upper.device()}));
  EXPECT_EQ(first->domain_id, "hydrant");
  EXPECT_EQ(first->meta_digest, "sha256:" + first->fsid);
  EXPECT_EQ(first->image.streamed_bytes, lower.size + upper.size);
  EXPECT_EQ(first->image.compressed_bytes, lower.size + upper.size);
  EXPECT_GT(first->image.files, 200U);

  auto built = image::fixture::build(image::fixture::gzip(lower.tar),
                                     image::fixture::expectation(image::fixture::gzip(lower.tar), lower.tar));
  ASSERT_TRUE(built);
  auto& object = cache_.objects[lower.device()];
  EXPECT_EQ(object.size, built->device.size());
  EXPECT_EQ(object.handle->content({0, built->device.size()}), built->device);
  EXPECT_FALSE(object.retired);

  auto second = prepare();
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->fsid, first->fsid);
  EXPECT_EQ(second->devices, first->devices);
  EXPECT_EQ(second->image.streamed_bytes, 0U);
  EXPECT_EQ(second->image.unpacked_bytes, first->image.unpacked_bytes);
  EXPECT_EQ(lower.blob->reads().size(), 1U);
  EXPECT_EQ(config_blob_->reads().size(), 1U);
}

TEST_F(PrepareTest, ARestartedDaemonAnswersOpensAndFillsTheirReads) {
  Layer layer = add_layer(image::fixture::many_files(2));
  add_image("1", {layer});
  auto prepared = prepare();
  ASSERT_TRUE(prepared) << prepared.error().what;
  const uint64_t size = *cache_.objects[layer.device()].size;
  Buffer device = cache_.objects[layer.device()].handle->content({0, size});
  start();

  store_->fail_with({.code = Code::kUnreachable, .what = "no network"});
  auto handle = std::make_shared<FakeHandle>();
  EXPECT_EQ(objects_->open({1, 1, "erofs,hydrant", layer.device(), handle}), static_cast<int64_t>(size));
  auto metadata = std::make_shared<FakeHandle>();
  int64_t metadata_size = objects_->open({2, 2, "erofs,hydrant", prepared->fsid, metadata});
  ASSERT_GT(metadata_size, 0);
  objects_->read({5, 2, {0, static_cast<uint64_t>(metadata_size)}});
  ASSERT_TRUE(metadata->wait_for_completions(1, Deadline::after(20s)));
  EXPECT_EQ(sha256(metadata->content({0, static_cast<uint64_t>(metadata_size)})).hex(), prepared->fsid);

  store_->fail_with({.code = Code::kOk, .what = ""});
  objects_->read({6, 1, {size - 4096, size}});
  objects_->read({7, 1, {0, size}});
  ASSERT_TRUE(handle->wait_for_completions(2, Deadline::after(20s)));
  EXPECT_EQ(handle->content({0, size}), device);
}

TEST_F(PrepareTest, AMetadataImageWrittenAnewIsReadOnByWhoHasItOpen) {
  Layer layer = add_layer({{"a", image::fixture::text(1000)}});
  add_image("1", {layer});
  auto prepared = prepare();
  ASSERT_TRUE(prepared) << prepared.error().what;
  auto blob = origins_->origin(*catalogue_->object(prepared->fsid))->blob(Deadline::after(20s));
  ASSERT_TRUE(blob) << blob.error().what;
  const std::string path = Paths{root_}.metadata(prepared->fsid);
  ASSERT_EQ(::link(path.c_str(), (path + ".link").c_str()), 0);
  ASSERT_TRUE(write_file_atomic(path, as_bytes(*read_file(path))));
  auto bytes = source::read_all(**blob, {{0, (*blob)->size()}, Deadline::after(20s), {}});
  ASSERT_TRUE(bytes) << bytes.error().what;
  EXPECT_EQ(sha256(*bytes).hex(), prepared->fsid);
}

TEST_F(PrepareTest, IndexOnlyPutsNothingIntoTheCache) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  auto indexed = prepare("1", true);
  ASSERT_TRUE(indexed) << indexed.error().what;
  EXPECT_TRUE(cache_.objects.empty());
  EXPECT_EQ(indexed->fsid, "");
  EXPECT_EQ(indexed->image.layers.size(), 1U);
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_TRUE(cache_.objects.empty()) << "the index makes the layer lazy";
  EXPECT_EQ(mounted->image.streamed_bytes, 0U);
}

TEST_F(PrepareTest, ACorruptLayerLeavesNothingBehind) {
  Layer layer = add_layer(image::fixture::many_files(3));
  add_image("1", {layer});
  layer.blob->answer({.kind = source::FakeAnswer::Kind::kFlipBit, .after = layer.size / 2}, 1);
  auto failed = prepare();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kCorrupt) << failed.error().what;
  EXPECT_TRUE(cache_.objects[layer.device()].retired);
  EXPECT_FALSE(std::filesystem::exists(Paths{root_}.index(layer.digest)));
  EXPECT_EQ(catalogue_->object(layer.device()).error().code, Code::kNotFound);
  auto again = prepare();
  EXPECT_TRUE(again) << again.error().what;
}

TEST_F(PrepareTest, TwoPreparesOfOneLayerShareItsStream) {
  Layer layer = add_layer(image::fixture::many_files(4));
  add_image("1", {layer});
  layer.blob->hold();
  auto run = [this] {
    proto::PrepareRequest request;
    request.source = "registry.example/app:1";
    PrepareEvents events{[](const proto::Progress&) {}, [](const std::string&) {}};
    return preparer_->prepare(request, events, {}).has_value();
  };
  auto one = std::async(std::launch::async, run);
  auto two = std::async(std::launch::async, run);
  ASSERT_TRUE(layer.blob->wait_for_reads(1, Deadline::after(20s)));
  layer.blob->release();
  EXPECT_TRUE(one.get());
  EXPECT_TRUE(two.get());
  EXPECT_EQ(layer.blob->reads().size(), 1U);
}

TEST_F(PrepareTest, AnImageThatClaimsAnotherDiffIdOfALayerStreamsItAlone) {
  Layer layer = add_layer(image::fixture::many_files(6));
  LayerWanted right;
  right.source = *proto::SourceReference::parse("registry.example/app:1");
  right.digest = layer.digest;
  right.size = layer.size;
  right.diff_id = sha256(layer.tar);
  right.media_type = kGzipLayer;
  LayerWanted wrong = right;
  wrong.diff_id = sha256(as_bytes("something else"));
  layer.blob->hold();
  auto first = streamer_->stream(wrong);
  ASSERT_TRUE(layer.blob->wait_for_reads(1, Deadline::after(20s)));
  auto second = streamer_->stream(right);
  layer.blob->release();
  auto failed = first.wait(Deadline::after(20s));
  auto good = second.wait(Deadline::after(20s));
  ASSERT_TRUE(failed && good);
  EXPECT_FALSE(*failed);
  EXPECT_TRUE(*good) << good->error().what;
}

TEST_F(PrepareTest, AClientThatLeavesEndsTheStreamNobodyElseWants) {
  Layer layer = add_layer(image::fixture::many_files(5));
  add_image("1", {layer});
  layer.blob->hold();
  std::stop_source stop;
  auto run = std::async(std::launch::async, [&] { return prepare("1", false, stop.get_token()).error().code; });
  ASSERT_TRUE(layer.blob->wait_for_reads(1, Deadline::after(20s)));
  stop.request_stop();
  EXPECT_EQ(run.get(), Code::kCancelled);
  streamer_.reset();  // joins
  EXPECT_TRUE(cache_.objects[layer.device()].retired);
}

TEST_F(PrepareTest, StartsWithoutTheNetworkWhenEverythingIsHere) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  auto first = prepare();
  ASSERT_TRUE(first) << first.error().what;
  start();
  store_->fail_with({.code = Code::kUnreachable, .what = "no route"});
  auto second = prepare();
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->fsid, first->fsid);
  EXPECT_EQ(warnings_.size(), 1U);
  EXPECT_EQ(prepare("other").error().code, Code::kUnreachable);
  store_->fail_with({.code = Code::kBusy, .what = "429", .retry = true});
  EXPECT_TRUE(prepare());
  store_->fail_with({.code = Code::kIo, .what = "503", .retry = true});
  EXPECT_TRUE(prepare());
  EXPECT_EQ(warnings_.size(), 3U);
  store_->fail_with({.code = Code::kUnauthorized, .what = "401"});
  EXPECT_EQ(prepare().error().code, Code::kUnauthorized) << "a refusal is not an absence";
}

TEST_F(PrepareTest, ABusyDeviceIsIndexedWithoutTheCache) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  cache_.refuse = Code::kBusy;
  EXPECT_TRUE(prepare());
  cache_.refuse = Code::kUnreachable;
  Layer other = add_layer({{"b", image::fixture::text(100'000, 7)}});
  add_image("2", {other});
  EXPECT_EQ(prepare("2").error().code, Code::kUnreachable) << "hydrantd is needed";
}

TEST_F(PrepareTest, ABusyDeviceThatIsOpenedMeanwhileGoesToItsReaders) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  ObjectRow row;
  row.id = layer.device();
  row.kind = ObjectKind::kLayer;
  row.size = 4096;
  ASSERT_TRUE(catalogue_->put_object(row));
  cache_.refuse = Code::kBusy;
  layer.blob->hold();
  auto run = std::async(std::launch::async, [this] { return prepare().has_value(); });
  EXPECT_TRUE(layer.blob->wait_for_reads(1, Deadline::after(20s)));
  EXPECT_EQ(objects_->open({1, 1, "erofs,hydrant", layer.device(), std::make_shared<FakeHandle>()}), 4096);
  layer.blob->release();
  EXPECT_TRUE(run.get());
}

constexpr char kZstdLayer[] = "application/vnd.oci.image.layer.v1.tar+zstd";

TEST_F(PrepareTest, AZstdLayerInManyFramesIsLazyAndAMislabelledOneReadAsWhatItIs) {
  Buffer tar = image::fixture::tar(image::fixture::many_files(7));
  Buffer frames = image::fixture::zstd(tar, 300'000);
  Layer layer = add_layer(tar, frames), mislabelled = add_layer(image::fixture::many_files(8));
  add_image("1", {layer, mislabelled}, kZstdLayer);
  auto first = prepare();
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_TRUE(first->image.layers[0].lazy);
  EXPECT_TRUE(first->image.layers[1].lazy);
  cache_.objects.clear();
  auto second = prepare();
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->image.streamed_bytes, 0U);
}

TEST_F(PrepareTest, AZstdLayerInOneLongFrameIsFilledBeforeEveryMountThatLacksItsDevice) {
  Buffer tar = image::fixture::tar({{"noise", image::fixture::noise((33 << 20) + 1)}});
  Buffer frame = image::fixture::zstd(tar, 0, -5);
  Layer layer = add_layer(std::move(tar), std::move(frame));
  add_image("1", {layer}, kZstdLayer);
  ASSERT_TRUE(prepare("1", true));
  auto first = prepare();
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ(first->image.streamed_bytes, layer.size) << "the index alone is of no use";
  EXPECT_FALSE(first->image.layers[0].lazy);
  EXPECT_NE(first->image.layers[0].why.find("MiB"), std::string::npos);
  ASSERT_TRUE(cache_.objects[layer.device()].size);

  start();
  store_->fail_with({.code = Code::kUnreachable, .what = "no network"});
  auto offline = prepare();
  ASSERT_TRUE(offline) << offline.error().what;
  EXPECT_EQ(offline->image.streamed_bytes, 0U) << "the device is complete";
  EXPECT_FALSE(offline->image.layers[0].lazy);

  cache_.objects.clear();  // culled
  EXPECT_EQ(prepare().error().code, Code::kUnreachable);
  store_->fail_with({.code = Code::kOk, .what = ""});
  auto again = prepare();
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->image.streamed_bytes, layer.size);
  EXPECT_TRUE(cache_.objects[layer.device()].size);
}

TEST_F(PrepareTest, WithoutIngestALayerIsIndexedAndLeftToItsReaders) {
  Layer layer = add_layer({{"a", image::fixture::text(1000)}});
  add_image("1", {layer});
  preparer_.reset();
  streamer_ = std::make_unique<LayerStreamer>(Paths{root_}, *origins_, *objects_, no_ingest(), 2);
  preparer_ = std::make_unique<Preparer>(Paths{root_}, *catalogue_, *credentials_, *origins_, *streamer_);
  auto reply = prepare();
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_EQ(reply->devices, std::vector<std::string>{layer.device()});
  EXPECT_TRUE(cache_.objects.empty());
  // An OPEN of either object has its size from then on.
  auto handle = std::make_shared<FakeHandle>();
  EXPECT_EQ(objects_->open({1, 1, "erofs,hydrant", layer.device(), handle}),
            static_cast<int64_t>(catalogue_->object(layer.device())->size));
  objects_->read({2, 1, {0, 4096}});
  ASSERT_TRUE(handle->wait_for_completions(1, Deadline::after(60s)));
  EXPECT_GT(handle->writes(), 0U);
  EXPECT_GT(objects_->open({3, 2, "erofs,hydrant", reply->fsid, handle}), 0);
}

TEST_F(PrepareTest, ATableOfContentsIsReadInsteadOfTheLayer) {
  using image::TocKind;
  for (auto kind : {TocKind::kEstargz, TocKind::kZstdChunked}) {
    const std::string tag = image::to_string(kind).substr(0, 4);
    const auto files = image::fixture::many_files(9);
    const auto blob = image::fixture::toc_blob(files, {.kind = kind});
    Layer layer = add_layer(blob);
    add_image(tag, {layer}, kind == TocKind::kEstargz ? kGzipLayer : kZstdLayer);
    auto prepared = prepare(tag);
    ASSERT_TRUE(prepared) << prepared.error().what;
    EXPECT_EQ(layer.blob->reads().size(), 1U);
    EXPECT_LT(prepared->image.streamed_bytes, layer.size / 4);
    EXPECT_EQ(prepared->image.layers[0].toc, image::to_string(kind));
    EXPECT_TRUE(prepared->image.layers[0].lazy);
    EXPECT_TRUE(cache_.objects.empty()) << "nothing is filled beforehand";
    ASSERT_EQ(prepared->devices.size(), 1U);
    const std::string device = prepared->devices[0];
    EXPECT_NE(device, layer.device()) << "no one has compared the diff_id";

    // After a restart, and without the network but for the layer itself.
    start();
    auto handle = std::make_shared<FakeHandle>();
    const auto size = objects_->open({7, 7, "erofs,hydrant", device, handle});
    ASSERT_GT(size, 0);
    objects_->read({1, 7, {0, uint64_t(size)}});
    ASSERT_TRUE(handle->wait_for_completions(1, Deadline::after(20s)));
    const Buffer tar = image::fixture::tar(files);
    auto built = image::fixture::build(tar, image::fixture::expectation(tar, tar));
    ASSERT_TRUE(built);
    EXPECT_EQ(handle->content({0, uint64_t(size)}), built->device);

    store_->fail_with({.code = Code::kUnreachable, .what = "no network"});
    auto offline = prepare(tag);
    ASSERT_TRUE(offline) << offline.error().what;
    EXPECT_EQ(offline->fsid, prepared->fsid);
    EXPECT_EQ(offline->image.streamed_bytes, 0U);
    store_->fail_with({.code = Code::kOk, .what = ""});
  }
}

TEST_F(PrepareTest, ALayerWhoseTableDoesNotServeIsStreamedAsAnyOther) {
  const auto plain = [this](const char* tag, image::fixture::TocBlob blob) {
    Layer layer = add_layer(blob);
    add_image(tag, {layer});
    for (int i = 0; i < 2; ++i) {
      auto prepared = prepare(tag);
      ASSERT_TRUE(prepared) << prepared.error().what;
      EXPECT_EQ(prepared->image.layers[0].toc, "") << tag;
      EXPECT_EQ(prepared->devices, std::vector<std::string>{layer.device()}) << tag;
      EXPECT_EQ(prepared->image.streamed_bytes >= layer.size, i == 0) << tag;
      EXPECT_TRUE(cache_.objects[layer.device()].size) << tag;
    }
  };
  auto blob = image::fixture::toc_blob({{"a", image::fixture::noise(200'000)}});
  blob.annotations.clear();
  plain("unbound", blob);
  blob = image::fixture::toc_blob({{"b", image::fixture::noise(200'000)}});
  for (auto& [name, value] : blob.annotations) value = sha256(as_bytes("another table")).text();
  plain("of-another", blob);
  blob = image::fixture::toc_blob({{"c", image::fixture::noise(200'000)}}, {.twist = [](auto& document) {
                                    document["entries"][0].erase("digest");
                                    document["entries"][0].erase("chunkDigest");
                                  }});
  plain("unproven", blob);
  blob = image::fixture::toc_blob({{"d", image::fixture::noise(200'000)}});
  blob.stored.resize(blob.stored.size() - 51);
  plain("no-footer", blob);
}

TEST_F(PrepareTest, TheSameLayerUnderAnotherTableIsAnotherDevice) {
  const auto blob = image::fixture::toc_blob({{"a", image::fixture::noise(100'000)}}),
             liar = image::fixture::toc_blob({{"a", image::fixture::noise(100'000, 2)}});
  Layer good = add_layer(blob), bad = good;
  bad.annotations = liar.annotations;
  add_image("good", {good}), add_image("bad", {bad});
  auto first = prepare("bad"), second = prepare("good");
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->image.layers[0].toc, "") << "its table is not the layer's";
  EXPECT_EQ(second->image.layers[0].toc, "") << "an index that stands here is used";
  std::filesystem::remove_all(root_ + "/fetch/indexes");
  start();
  auto third = prepare("good");
  ASSERT_TRUE(third) << third.error().what;
  EXPECT_EQ(third->image.layers[0].toc, "eStargz");
  EXPECT_NE(third->devices, first->devices);
  EXPECT_NE(third->fsid, first->fsid);
}

TEST_F(PrepareTest, ALargeTableIsFetchedInTwo) {
  std::vector<TarFile> files;
  for (int i = 0; i < 2500; ++i) files.push_back({"f" + std::to_string(i), image::fixture::noise(20, uint32_t(i))});
  Layer layer = add_layer(image::fixture::toc_blob(files));
  add_image("1", {layer});
  auto prepared = prepare();
  ASSERT_TRUE(prepared) << prepared.error().what;
  EXPECT_EQ(prepared->image.layers[0].toc, "eStargz");
  EXPECT_EQ(prepared->image.files, 2501U);
  EXPECT_EQ(layer.blob->reads().size(), 2U);
}

TEST_F(PrepareTest, AFailingOriginIsNoReasonToStream) {
  Layer layer = add_layer(image::fixture::toc_blob({{"a", image::fixture::noise(100'000)}}));
  add_image("1", {layer});
  layer.blob->answer({.kind = source::FakeAnswer::Kind::kFail, .error = {.code = Code::kUnreachable, .what = "gone"}});
  EXPECT_EQ(prepare().error().code, Code::kUnreachable);
  EXPECT_EQ(layer.blob->reads().size(), 1U);
  EXPECT_TRUE(prepare());
}

TEST_F(PrepareTest, NamesWhatItCannotMount) {
  Layer layer = add_layer({{"a", image::fixture::text(1000)}});
  add_image("1", {layer}, "application/vnd.foreign.layer");
  auto foreign = prepare();
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, Code::kUnsupported);
  EXPECT_NE(foreign.error().what.find("foreign"), std::string::npos) << foreign.error().what;
  EXPECT_TRUE(layer.blob->reads().empty());
  EXPECT_EQ(prepare("missing").error().code, Code::kNotFound);

  PrepareEvents events{[](const proto::Progress&) {}, [](const std::string&) {}};
  proto::PrepareRequest request;
  request.source = "oci:relative/dir";
  EXPECT_EQ(preparer_->prepare(request, events, {}).error().code, Code::kInvalid);
  request.source = "https://example/file.bin";
  EXPECT_EQ(preparer_->prepare(request, events, {}).error().code, Code::kUnsupported);
}

TEST_F(PrepareTest, ADamagedMetadataImageOrIndexIsMadeAgain) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  auto first = prepare();
  ASSERT_TRUE(first) << first.error().what;
  Paths paths{root_};
  ASSERT_TRUE(write_file_atomic(paths.metadata(first->fsid), as_bytes("rot")));
  auto second = prepare();
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->fsid, first->fsid);
  EXPECT_EQ(sha256(as_bytes(*read_file(paths.metadata(first->fsid)))).hex(), first->fsid);
  EXPECT_EQ(layer.blob->reads().size(), 1U);
  ASSERT_TRUE(write_file_atomic(paths.index(layer.digest), as_bytes("rot")));
  EXPECT_TRUE(prepare());
  EXPECT_EQ(layer.blob->reads().size(), 2U);
}

// An object of a server that tells its versions.
struct RemoteFile final : source::Blob {
  RemoteFile(Buffer content, std::string validator)
      : fake(std::move(content)), about{.validator = std::move(validator)} {}
  uint64_t size() const override { return fake.size(); }
  Result<> read(const source::ReadRequest& request, const source::Sink& sink) override {
    return fake.read(request, sink);
  }
  source::BlobVersion version() const override { return about; }
  std::string describe() const override { return "remote"; }
  source::FakeBlob fake;
  source::BlobVersion about;
};

TEST_F(PrepareTest, ATarballIsStreamedOnceAndItsVersionsNeverMix) {
  const Buffer tar = image::fixture::tar(image::fixture::many_files(11));
  auto file = std::make_shared<RemoteFile>(image::fixture::gzip(tar), "one");
  remote_ = file;
  proto::PrepareRequest request;
  request.source = "https://host/a.tar.gz?token=secret";
  request.as = "tar";
  const PrepareEvents events{[](const proto::Progress&) {}, [](const std::string&) {}};
  auto first = preparer_->prepare(request, events, {});
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ(first->source, "https://host/a.tar.gz");
  ASSERT_EQ(first->devices.size(), 1U);
  EXPECT_TRUE(cache_.objects[first->devices[0]].size) << "filled on the way";
  EXPECT_NE(first->devices[0], proto::device_object_id(image::kLayoutVersion, sha256(tar).text()));
  start();
  auto second = preparer_->prepare(request, events, {});
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(second->fsid, first->fsid);
  EXPECT_EQ(file->fake.reads().size(), 1U);

  remote_ = std::make_shared<RemoteFile>(image::fixture::gzip(tar), "two");
  auto handle = std::make_shared<FakeHandle>();
  ASSERT_GT(objects_->open({1, 1, "erofs,hydrant", first->devices[0], handle}), 0);
  objects_->read({1, 1, {0, 4096}});
  ASSERT_TRUE(handle->wait_for_completions(1, Deadline::after(20s)));
  EXPECT_EQ(handle->writes(), 0U);
  auto other = preparer_->prepare(request, events, {});
  ASSERT_TRUE(other) << other.error().what;
  EXPECT_NE(other->devices[0], first->devices[0]);
  remote_ = std::make_shared<RemoteFile>(to_buffer(as_bytes("no tar")), "three");
  EXPECT_FALSE(preparer_->prepare(request, events, {}));
}

}  // namespace
}  // namespace hydrant::fetch
