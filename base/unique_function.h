// A move-only callable (GCC 12 has no std::move_only_function). One allocation; empty after a move.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace hydrant {

template <class Signature>
class UniqueFunction;

template <class R, class... Args>
class UniqueFunction<R(Args...)> {
 public:
  UniqueFunction() = default;
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, UniqueFunction> && std::is_invocable_r_v<R, F&, Args...>)
      UniqueFunction(F&& f)
      : callee_(std::make_unique<Model<std::decay_t<F>>>(std::forward<F>(f))) {}

  R operator()(Args... args) { return callee_->call(std::forward<Args>(args)...); }
  explicit operator bool() const { return callee_ != nullptr; }

 private:
  struct Concept {
    virtual ~Concept() = default;
    virtual R call(Args... args) = 0;
  };
  template <class F>
  struct Model final : Concept {
    explicit Model(F f) : f_(std::move(f)) {}
    R call(Args... args) override { return f_(std::forward<Args>(args)...); }
    F f_;
  };
  std::unique_ptr<Concept> callee_;
};

}  // namespace hydrant
