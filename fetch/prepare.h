// From a source to everything that its mount needs: indexes, the metadata image, rows of the catalogue.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "fetch/catalogue.h"
#include "fetch/credential_store.h"
#include "fetch/layer_streamer.h"
#include "fetch/origins.h"
#include "fetch/paths.h"
#include "fetch/trust.h"
#include "proto/admin.h"
#include "source/open.h"

namespace hydrant::fetch {

// What a prepare tells while it runs. Called in the preparing thread.
struct PrepareEvents {
  std::function<void(const proto::Progress&)> progress;
  std::function<void(const std::string&)> warning;
};

struct PreparerOptions {
  bool fill_holes = false;  // image::ErofsOptions
};

// Thread-safe: prepares run side by side and share the streams of common layers.
class Preparer {
 public:
  // All outlive the preparer.
  Preparer(Paths paths, Catalogue& catalogue, CredentialStore& credentials, Origins& origins, LayerStreamer& streamer,
           PreparerOptions options = {})
      : paths_(std::move(paths)),
        catalogue_(catalogue),
        credentials_(credentials),
        origins_(origins),
        streamer_(streamer),
        options_(options) {}

  // kCancelled when stopped. Whatever fails, what earlier prepares made stays usable.
  Result<proto::PrepareReply> prepare(const proto::PrepareRequest& request, const PrepareEvents& events,
                                      std::stop_token stop);

 private:
  struct Image;
  void find_indexes(Image& image, source::ImageStore& store, Trust trust, std::stop_token stop);
  Result<> stream_missing(Image& image, const proto::PrepareRequest& request, const PrepareEvents& events,
                          std::stop_token stop);
  Result<proto::PrepareReply> prepare_tarball(Image image, const proto::PrepareRequest& request,
                                              const PrepareEvents& events, std::stop_token stop);
  Result<proto::PrepareReply> finish(Image& image, const proto::PrepareRequest& request, const PrepareEvents& events,
                                     std::stop_token stop);
  Result<std::shared_ptr<const image::LayerIndex>> own_index(const LayerReading& reading);
  Result<std::shared_ptr<const image::LayerIndex>> index_of(const LayerReading& reading);
  Result<bool> reuse(Image& image);
  Result<> keep_all_leaves(const std::vector<std::shared_ptr<const image::LayerIndex>>& indexes,
                           std::vector<proto::LayerFacts>& layers);
  Result<> build(Image& image, bool index_only);
  Result<> record(const Image& image, const proto::PrepareRequest& request);

  const Paths paths_;
  Catalogue& catalogue_;
  CredentialStore& credentials_;
  Origins& origins_;
  LayerStreamer& streamer_;
  const PreparerOptions options_;
};

}  // namespace hydrant::fetch
