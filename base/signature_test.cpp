#include "base/signature.h"

#include <gtest/gtest.h>

#include "base/signature_fixture.h"

namespace hydrant {
namespace {

using fixture::KeyPair;
using fixture::new_key;

TEST(Signature, HoldsForItsKeyAndItsTextAlone) {
  const KeyPair pairs[] = {new_key(), new_key("EC", "P-256")};
  const KeyPair other = new_key();
  for (const auto& pair : pairs) {
    auto signature = sign(pair.secret, "text");
    ASSERT_TRUE(signature) << signature.error().what;
    EXPECT_TRUE(verify(pair.open, "text", *signature));
    EXPECT_EQ(verify(pair.open, "texts", *signature).error().code, Code::kDenied);
    EXPECT_EQ(verify(other.open, "text", *signature).error().code, Code::kDenied);
    EXPECT_EQ(verify(pair.open, "text", "").error().code, Code::kDenied);
    EXPECT_EQ(verify(pair.open, "text", "zz").error().code, Code::kDenied);
    EXPECT_EQ(verify(pair.open, "text", signature->substr(1)).error().code, Code::kDenied);
  }
}

TEST(Signature, WhatIsNoKeyIsInvalid) {
  const KeyPair pair = new_key();
  EXPECT_EQ(sign("", "text").error().code, Code::kInvalid);
  EXPECT_EQ(sign(pair.open, "text").error().code, Code::kInvalid);
  EXPECT_EQ(verify("x", "text", "00").error().code, Code::kInvalid);
}

}  // namespace
}  // namespace hydrant
