#include "cachefiles/cache.h"

#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"

namespace hydrant::cachefiles {

Cache::Cache(EngineImpl& engine) : engine_(engine) {}
Cache::~Cache() = default;

InUse& Cache::in_use() { return engine_.in_use(); }
Disk& Cache::disk() { return engine_.disk(); }
Presence Cache::presence() const { return engine_.options().presence; }
Naming Cache::naming() const { return engine_.options().naming; }
void Cache::submit(UniqueFunction<void()> task) { engine_.submit(std::move(task)); }
void Cache::submit_commit(UniqueFunction<void()> task) { engine_.submit_commit(std::move(task)); }

}  // namespace hydrant::cachefiles
