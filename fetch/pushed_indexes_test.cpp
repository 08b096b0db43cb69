#include "fetch/pushed_indexes.h"

#include "base/signature_fixture.h"
#include "fetch/late_proofs.h"
#include "fetch/prepare_fixture.h"
#include "proto/prefetch_list.h"

namespace hydrant::fetch {
namespace {

class PushedIndexesTest : public PrepareTest {
 protected:
  void TearDown() override {
    PrepareTest::TearDown();
    for (const auto& root : left_) std::filesystem::remove_all(root);
  }
  // Another machine, which knows nothing.
  void new_node() {
    stop();
    cache_.objects.clear();
    left_.push_back(root_);
    std::string name = testing::TempDir() + "nodeXXXXXX";
    root_ = ::mkdtemp(name.data());
    ASSERT_TRUE(make_directories(root_ + "/fetch"));
    start();
  }
  void trust_key(const std::string& key) {
    ASSERT_TRUE(make_directories(Paths{root_}.trusted_keys()));
    ASSERT_TRUE(write_file_atomic(Paths{root_}.trusted_keys() + "/key.pem", as_bytes(key)));
  }
  Result<proto::PrepareReply> push(const std::string& key) {
    proto::PrepareRequest request;
    request.source = "registry.example/app:1";
    request.index_only = true;
    request.push = true;
    request.sign_key = key;
    return preparer_->prepare(request, {[](const proto::Progress&) {}, [](const std::string&) {}}, {});
  }
  // The digest of the image's copy.
  Digest convert(const std::string& tag, const std::string& platform = "linux/amd64", const std::string& from = "1") {
    proto::PrepareRequest request;
    request.source = "registry.example/app:" + from;
    request.platform = platform;
    request.index_only = true;
    request.convert_to = "registry.example/app:" + tag;
    auto done = preparer_->prepare(request, {[](const proto::Progress&) {}, [](const std::string&) {}}, {});
    EXPECT_TRUE(done) << done.error().what;
    return done ? Digest::parse(done->converted).value() : Digest();
  }
  // An artifact that says of the layer what `index` does.
  void push_instead(const Layer& layer, const Buffer& index) {
    const auto image = store_->manifest("1", Deadline::after(20s)).value();
    proto::IndexArtifact artifact;
    artifact.subject.media_type = image.media_type;
    artifact.subject.digest = image.digest;
    artifact.subject.size = image.body.size();
    auto loaded = image::LayerIndex::load(index, {});
    const Digest root = loaded ? (*loaded)->merkle_root() : sha256(index);
    artifact.layers = {{layer.digest, sha256(layer.tar), root, sha256(index), index.size()}};
    store_->add_blob(index);
    const std::string body = proto::encode(artifact);
    proto::Descriptor self;
    self.media_type = proto::media::kOciManifest;
    self.digest = sha256(as_bytes(body));
    self.size = body.size();
    self.artifact_type = proto::media::kIndexArtifact;
    ASSERT_TRUE(store_->put_referrer(image.digest, self, body, Deadline::after(20s)));
  }

  const fixture::KeyPair key_ = fixture::new_key();

 private:
  std::vector<std::string> left_;
};

TEST_F(PushedIndexesTest, ANodeWithATrustedKeyMountsByThePushedIndexAndStreamsNothing) {
  Layer lower = add_layer(image::fixture::many_files(7));
  Layer upper = add_layer({{"etc/name", to_buffer(as_bytes("upper"))}});
  add_image("1", {lower, upper});
  auto pushed = push(key_.secret);
  ASSERT_TRUE(pushed) << pushed.error().what;
  ASSERT_TRUE(pushed->pushed.starts_with("sha256:"));

  new_node();
  trust_key(key_.open);
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->image.streamed_bytes, 0U);
  EXPECT_EQ(mounted->image.layers[0].pushed, "key.pem");
  EXPECT_TRUE(cache_.objects.empty());
  ASSERT_EQ(mounted->devices.size(), 2U);
  EXPECT_NE(mounted->devices[0], lower.device()) << "another image of that diff_id must not read it";
  EXPECT_EQ(lower.blob->reads().size(), 1U) << "by the node that made the index";

  // What is read by it is the layer's device.
  auto built = image::fixture::build(image::fixture::gzip(lower.tar),
                                     image::fixture::expectation(image::fixture::gzip(lower.tar), lower.tar));
  ASSERT_TRUE(built);
  auto handle = std::make_shared<FakeHandle>();
  ASSERT_EQ(objects_->open({1, 1, "erofs,hydrant", mounted->devices[0], handle}), int64_t(built->device.size()));
  objects_->read({1, 1, {0, built->device.size()}});
  ASSERT_TRUE(handle->wait_for_completions(1, Deadline::after(20s)));
  EXPECT_EQ(handle->content({0, built->device.size()}), built->device);

  // Nor is anybody asked again, but for the tag.
  start();
  store_->fail_with({.code = Code::kUnreachable, .what = "no network"});
  auto again = prepare();
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->fsid, mounted->fsid);
}

TEST_F(PushedIndexesTest, APushedIndexThatNobodyVouchesForIsNotUsed) {
  Layer layer = add_layer(image::fixture::many_files(8));
  add_image("1", {layer});
  ASSERT_TRUE(push(""));
  new_node();
  trust_key(key_.open);
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->devices[0], layer.device());
  EXPECT_EQ(mounted->image.streamed_bytes, layer.size);

  ASSERT_TRUE(push(key_.secret));
  new_node();
  trust_key(fixture::new_key().open);
  mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->devices[0], layer.device());
}

TEST_F(PushedIndexesTest, AnIndexTakenLateIsProvenByReadingTheLayer) {
  Layer layer = add_layer(image::fixture::many_files(9));
  add_image("1", {layer});
  ASSERT_TRUE(push(""));
  new_node();
  trust_ = "late";
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->image.streamed_bytes, 0U);
  const auto row = catalogue_->object(mounted->devices[0]);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->kind, ObjectKind::kLateLayer);
  LateProofs proofs(*origins_, *streamer_, queue_, [](auto&) { return Result<>(); });
  proofs.expect(*row, Instant::min());
  ASSERT_TRUE(proofs.settled(row->id, Deadline::after(20s)));
  EXPECT_TRUE(origins_->usable(row->id));
  // The next mount is by what was proven, and its device is filled.
  EXPECT_TRUE(cache_.objects[layer.device()].size);
  EXPECT_EQ(prepare()->devices[0], layer.device());
}

TEST_F(PushedIndexesTest, AnIndexThatLiesIsFoundOutAndItsDeviceRefused) {
  Buffer tar = image::fixture::tar({{"bin/login", image::fixture::text(300'000)}});
  Layer layer = add_layer(tar, tar);
  add_image("1", {layer});
  ASSERT_TRUE(push(""));
  // The same, but the file is now everybody's to write and to become root by.
  auto honest = image::LayerIndex::load_file(Paths{root_}.index(layer.digest), {});
  ASSERT_TRUE(honest);
  image::LayerIndexContent lie{.ident = (*honest)->ident(),
                               .checkpoints = {},
                               .windows = {},
                               .files = (*honest)->files().value(),
                               .rows = (*honest)->rows(),
                               .leaves = (*honest)->leaves()};
  for (auto& file : lie.files) file.mode = 06777;
  push_instead(layer, image::encode_layer_index(lie));
  new_node();
  trust_ = "late";
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  const auto row = catalogue_->object(mounted->devices[0]);
  ASSERT_TRUE(row);
  ASSERT_EQ(row->kind, ObjectKind::kLateLayer);
  std::string withdrawn;
  LateProofs proofs(*origins_, *streamer_, queue_, [&](const std::string& device) {
    withdrawn = device;
    return Result<>();
  });
  proofs.expect(*row, Instant::min());
  ASSERT_TRUE(proofs.settled(row->id, Deadline::after(20s)));
  EXPECT_EQ(origins_->usable(row->id).error().code, Code::kCorrupt);
  EXPECT_EQ(withdrawn, row->id);
  auto handle = std::make_shared<FakeHandle>();
  objects_->open({1, 1, "erofs,hydrant", row->id, handle});
  objects_->read({1, 1, {0, 4096}});
  ASSERT_TRUE(handle->wait_for_completions(1, Deadline::after(20s)));
  EXPECT_EQ(handle->writes(), 0U);
  EXPECT_EQ(prepare()->devices[0], layer.device());
  // Nor is it taken again where there is no other: the layer is streamed.
  ASSERT_TRUE(std::filesystem::remove(Paths{root_}.index(layer.digest)));
  EXPECT_EQ(prepare()->devices[0], layer.device());
}

TEST_F(PushedIndexesTest, AnArtifactThatDoesNotFitIsPassedOver) {
  Layer layer = add_layer(image::fixture::many_files(10));
  add_image("1", {layer});
  ASSERT_TRUE(push(""));
  push_instead(layer, to_buffer(as_bytes("no index at all")));
  new_node();
  trust_ = "off";
  auto mounted = prepare();
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->devices[0], layer.device());
}

TEST_F(PushedIndexesTest, ThePrefetchListTravelsWithTheIndex) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  ASSERT_TRUE(push(""));
  const Digest manifest = *Digest::parse(prepare()->image.manifest);
  proto::PrefetchList list{.subject = manifest.text(), .runs = 1, .entries = {{sha256(layer.tar), "a"}}};
  ASSERT_TRUE(make_directories(Paths{root_}.prefetch_directory()));
  ASSERT_TRUE(write_file_atomic(Paths{root_}.prefetch_list(manifest), as_bytes(proto::encode(list))));
  ASSERT_TRUE(push(""));
  new_node();
  trust_ = "off";
  ASSERT_TRUE(prepare());
  auto text = read_file(Paths{root_}.prefetch_list(manifest));
  ASSERT_TRUE(text);
  EXPECT_EQ(proto::decode_prefetch_list(*text).value(), list);
}

TEST_F(PushedIndexesTest, AConvertedImageNamesItsIndexesItself) {
  Layer layer = add_layer(image::fixture::many_files(11));
  add_image("1", {layer});
  proto::PrepareRequest request;
  request.source = "registry.example/app:1";
  request.index_only = true;
  request.convert_to = "registry.example/app:lazy";
  const PrepareEvents events{[](const proto::Progress&) {}, [](const std::string&) {}};
  auto converted = preparer_->prepare(request, events, {});
  ASSERT_TRUE(converted) << converted.error().what;
  const auto original = store_->manifest("1", Deadline::after(20s)).value();
  const auto copy = store_->manifest("lazy", Deadline::after(20s)).value();
  EXPECT_EQ(copy.digest.text(), converted->converted);
  EXPECT_NE(copy.digest, original.digest);
  EXPECT_EQ(proto::with_index(original.body, *Digest::parse(converted->pushed)).value(), copy.body);
  EXPECT_TRUE(store_->referrers(original.digest, proto::media::kIndexArtifact, Deadline::after(20s))->empty());

  new_node();  // that trusts nobody
  auto mounted = prepare("lazy");
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->image.streamed_bytes, 0U);
  EXPECT_EQ(mounted->image.layers[0].pushed, kByManifest);
  EXPECT_EQ(catalogue_->object(mounted->devices[0])->kind, ObjectKind::kPushedLayer) << "nothing is left to prove";
  start();
  store_->fail_with({.code = Code::kUnreachable, .what = "no network"});
  EXPECT_EQ(prepare("lazy")->fsid, mounted->fsid);

  for (const char* elsewhere : {"registry.example/other:1", "other.example/app:1", "oci:/srv/app"}) {
    request.convert_to = elsewhere;
    EXPECT_EQ(preparer_->prepare(request, events, {}).error().code, Code::kUnsupported) << elsewhere;
  }
  request.convert_to = "registry.example/app@" + original.digest.text();
  EXPECT_EQ(preparer_->prepare(request, events, {}).error().code, Code::kInvalid);
}

TEST_F(PushedIndexesTest, AConvertedImageCarriesItsPrefetchList) {
  Layer layer = add_layer({{"a", image::fixture::text(100'000)}});
  add_image("1", {layer});
  const auto original = store_->manifest("1", Deadline::after(20s)).value();
  proto::PrefetchList list{.subject = original.digest.text(), .runs = 1, .entries = {{sha256(layer.tar), "a"}}};
  ASSERT_TRUE(make_directories(Paths{root_}.prefetch_directory()));
  ASSERT_TRUE(write_file_atomic(Paths{root_}.prefetch_list(original.digest), as_bytes(proto::encode(list))));
  const Digest copy = convert("lazy");

  new_node();
  ASSERT_TRUE(prepare("lazy"));
  auto text = read_file(Paths{root_}.prefetch_list(copy));
  ASSERT_TRUE(text);
  list.subject = copy.text();
  EXPECT_EQ(proto::decode_prefetch_list(*text).value(), list);
}

TEST_F(PushedIndexesTest, AConvertedImageTakesItsPlaceInTheIndexesItWasChosenFrom) {
  Layer amd64 = add_layer(image::fixture::many_files(12));
  Layer arm64 = add_layer(image::fixture::many_files(13));
  add_image("a", {amd64});
  add_image("b", {arm64}, kGzipLayer, "arm64");
  const auto a = store_->manifest("a", Deadline::after(20s)).value();
  const auto b = store_->manifest("b", Deadline::after(20s)).value();
  auto entry = [](const source::StoredManifest& manifest, const std::string& architecture) {
    return proto::Json{{"mediaType", manifest.media_type},
                       {"digest", manifest.digest.text()},
                       {"size", manifest.body.size()},
                       {"platform", {{"os", "linux"}, {"architecture", architecture}}}};
  };
  auto add_index = [&](const std::string& tag, const proto::Json& manifests) {
    const proto::Json index = {{"schemaVersion", 2}, {"manifests", manifests}, {"annotations", {{"note", tag}}}};
    store_->add_manifest(tag, std::string(proto::media::kOciIndex), index.dump());
  };
  add_index("inner", proto::Json::array({entry(a, "amd64")}));
  const auto inner = store_->manifest("inner", Deadline::after(20s)).value();
  add_index("1", proto::Json::array({entry(inner, "amd64"), entry(b, "arm64")}));
  const Digest copy = convert("lazy");

  const auto made = proto::Json::parse(store_->manifest("lazy", Deadline::after(20s)).value().body);
  auto expected = proto::Json::parse(store_->manifest("1", Deadline::after(20s)).value().body);
  EXPECT_EQ(made["annotations"], expected["annotations"]);
  EXPECT_EQ(made["manifests"][1], expected["manifests"][1]) << "another platform's image";
  const auto between =
      store_->manifest(made["manifests"][0]["digest"].get<std::string>(), Deadline::after(20s)).value();
  EXPECT_EQ(made["manifests"][0]["size"], between.body.size());
  EXPECT_EQ(proto::Json::parse(between.body)["manifests"][0]["digest"], copy.text());

  // And the other platform's, in what has come out.
  const Digest other = convert("lazy", "linux/arm64", "lazy");
  const auto both = proto::Json::parse(store_->manifest("lazy", Deadline::after(20s)).value().body);
  EXPECT_EQ(both["manifests"][0], made["manifests"][0]);
  EXPECT_EQ(both["manifests"][1]["digest"], other.text());

  new_node();
  auto mounted = prepare("lazy");
  ASSERT_TRUE(mounted) << mounted.error().what;
  EXPECT_EQ(mounted->image.manifest, copy.text());
  EXPECT_EQ(mounted->image.layers[0].pushed, kByManifest);
}

TEST_F(PushedIndexesTest, WhatCannotBePushedSaysSoBeforeAnythingIsFetched) {
  Layer layer = add_layer({{"a", image::fixture::text(1000)}});
  add_image("1", {layer});
  EXPECT_EQ(push("no key").error().code, Code::kInvalid);
  EXPECT_TRUE(layer.blob->reads().empty());
  trust_ = "maybe";
  EXPECT_EQ(prepare().error().code, Code::kInvalid);
}

}  // namespace
}  // namespace hydrant::fetch
