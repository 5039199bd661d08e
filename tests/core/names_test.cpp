// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/names.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/core/table.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

std::vector<std::string> const kOptimizers{"SGD", "Adam", "AdamW", "Adagrad"};

TEST(Names, NearestOfOneSlip) {
  EXPECT_EQ(nearest_name("AdanW", kOptimizers), "AdamW");
  EXPECT_EQ(nearest_name("SDG", {"SGD", "Adam"}), "SGD");  // a swap is one slip
  EXPECT_EQ(nearest_name("Adagard", kOptimizers), "Adagrad");
  EXPECT_EQ(nearest_name("train.optimizer.1r", {"train.optimizer.lr", "train.local_update_steps"}),
            "train.optimizer.lr");
}

TEST(Names, TheNearestWins) {
  EXPECT_EQ(nearest_name("Adam2", kOptimizers), "Adam");
  EXPECT_EQ(nearest_name("AdamWW", kOptimizers), "AdamW");
}

TEST(Names, FarNamesAreNotGuessed) {
  EXPECT_EQ(nearest_name("lion", kOptimizers), "");
  EXPECT_EQ(nearest_name("", kOptimizers), "");
  EXPECT_EQ(nearest_name("x", {"y"}), "");
  EXPECT_EQ(nearest_name("anything", {}), "");
}

TEST(Names, HintOrTheWholeList) {
  EXPECT_EQ(did_you_mean("adamw", {"AdamW"}), " Did you mean 'AdamW'?");
  EXPECT_EQ(did_you_mean("zzz", {"a", "b"}), " Known: a, b.");
  EXPECT_EQ(did_you_mean("zzz", {}), "");
}

TEST(Names, TheSameWordDeeperInItsSectionGoesBeforeALikeOne) {
  std::vector<std::string> const keys{"train.loss", "train.optimizer.lr", "data.root"};
  EXPECT_EQ(did_you_mean_key("train.lr", keys), " Did you mean 'train.optimizer.lr'?");
  EXPECT_EQ(did_you_mean_key("train.los", keys), " Did you mean 'train.loss'?");
  EXPECT_EQ(did_you_mean_key("data.rot", keys), " Did you mean 'data.root'?");
}

TEST(Table, FindsARowOrSaysWhichAreKnown) {
  std::vector<Row<int (*)()>> const table{{"iid", [] { return 1; }, "uniform"},
                                          {"lda", [] { return 2; }, "Dirichlet"}};
  EXPECT_EQ(find_row(table, "lda", "data.splitter").build(), 2);
  EXPECT_ERROR(find_row(table, "iib", "data.splitter"),
               "data.splitter = 'iib' (not a known name). Did you mean 'iid'?");
  EXPECT_ERROR(find_row(table, "metis", "data.splitter"), "Known: iid, lda.");
}

TEST(Error, CheckFormatsItsMessageOnlyOnFailure) {
  int formatted = 0;
  auto const count = [&] { return ++formatted; };
  FSLLM_CHECK(true, "{}", count());
  EXPECT_EQ(formatted, 0);
  EXPECT_ERROR(FSLLM_CHECK(1 > 2, "a = {} (must be {}). Change it.", 1, "more"),
               "a = 1 (must be more). Change it.");
  EXPECT_THROW(fail_internal("file.cpp", 7, "x > 0"), InternalError);
}

}  // namespace
}  // namespace fsllm
