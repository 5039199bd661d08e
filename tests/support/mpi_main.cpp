// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <iostream>
#include <memory>

#include "fsllm/comm/communicator.hpp"
#include "support.hpp"

namespace {

/// Ranks other than 0 print failures only, each with its rank.
class RankListener : public testing::EmptyTestEventListener {
 public:
  explicit RankListener(int rank) : rank_(rank) {}
  void OnTestPartResult(testing::TestPartResult const& result) override {
    if (result.failed())
      std::cerr << "[rank " << rank_ << "] " << (result.file_name() ? result.file_name() : "?") << ":"
                << result.line_number() << ": " << result.summary() << std::endl;
  }

 private:
  int rank_;
};

}  // namespace

int main(int argc, char** argv) {
  fsllm::MpiSession session(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);  // the others would wait for this rank in a collective
  auto const world = fsllm::Communicator::world();
  fsllm::test::seed_each_test();
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankListener(world.rank()));
  }
  int const mine = RUN_ALL_TESTS();
  return world.max(mine) != 0 ? 1 : 0;
}
