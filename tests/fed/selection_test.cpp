// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/selection.hpp"

#include <limits>

#include "support.hpp"

namespace fsllm {
namespace {

/// Number of losses seen when the run stops, 0 if it never does.
size_t stops_after(SelectionConfig const& config, std::vector<double> const& losses) {
  Selection selection(config);
  for (size_t i = 0; i < losses.size(); ++i) {
    selection.observe(losses[i]);
    if (selection.stop()) return i + 1;
  }
  return 0;
}

SelectionConfig patience(int64_t evaluations, double delta = 0, bool mean = false) {
  SelectionConfig config;
  config.patience = evaluations;
  config.delta = delta;
  config.improve_on_mean = mean;
  return config;
}

TEST(Selection, StopsAfterPatienceWithoutImprovement) {
  EXPECT_EQ(stops_after(patience(2), {5, 4, 4.1, 3, 3.5, 3.2, 1}), 6U);
  EXPECT_EQ(stops_after(patience(0), {5, 6, 7, 8, 9, 10}), 0U);
  EXPECT_EQ(stops_after(patience(2, 0.5), {5, 4.8, 4.6, 4.4}), 3U);
}

TEST(Selection, ComparesWithTheMeanOfTheLastOnes) {
  EXPECT_EQ(stops_after(patience(2, 0, true), {5, 4, 4.4, 4.3}), 4U);
  EXPECT_EQ(stops_after(patience(3, 0, true), {5, 4, 3}), 0U);
}

TEST(Selection, TellsTheBest) {
  Selection selection(patience(0));
  std::vector<bool> best;
  for (double const loss : {3.0, 2.0, 2.5, 1.5, 1.5}) best.push_back(selection.observe(loss));
  EXPECT_EQ(best, (std::vector<bool>{true, true, false, true, false}));
  EXPECT_EQ(selection.best(), 1.5);
}

TEST(Selection, ALossThatIsNotFiniteIsWorseThanAny) {
  auto const nan = std::numeric_limits<double>::quiet_NaN(),
             infinite = std::numeric_limits<double>::infinity();
  Selection selection(patience(0)), resumed(patience(0));
  std::vector<bool> best;
  for (double const loss : {nan, 3.0, infinite, nan, 2.0}) {
    best.push_back(selection.observe(loss));
    resumed.load_state(selection.state());
    EXPECT_EQ(resumed.state(), selection.state());
  }
  EXPECT_EQ(best, (std::vector<bool>{false, true, false, false, true}));
  EXPECT_EQ(resumed.best(), 2);
  EXPECT_EQ(stops_after(patience(2), {nan, nan, nan}), 3U);
  resumed.load_state(R"({"history":[null,3.0],"best":null,"reference":null,"since":0,"stop":false})");
  EXPECT_TRUE(resumed.observe(3)) << "of a checkpoint before";
}

TEST(Selection, GoesOnFromItsState) {
  std::vector<double> const losses{5, 4, 4.1, 4.2, 4.3};
  Selection whole(patience(3));
  for (double const loss : losses) whole.observe(loss);
  Selection first(patience(3)), second(patience(3));
  for (size_t i = 0; i < 2; ++i) first.observe(losses[i]);
  second.load_state(first.state());
  for (size_t i = 2; i < losses.size(); ++i) second.observe(losses[i]);
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_TRUE(second.stop());
}

}  // namespace
}  // namespace fsllm
