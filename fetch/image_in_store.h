// What indexes of an image are looked for, kept and pushed with.
#pragma once

#include <string>

#include "fetch/catalogue.h"
#include "fetch/origins.h"
#include "fetch/paths.h"
#include "source/open.h"

namespace hydrant::fetch {

// One image in its store, and where this node keeps what it learns of it. All outlive it.
struct ImageInStore {
  const Paths& paths;
  Catalogue& catalogue;
  Origins& origins;
  source::ImageStore& store;
  std::string store_name;  // distinguishes stores in the catalogue
  const source::ResolvedImage& image;
};

}  // namespace hydrant::fetch
