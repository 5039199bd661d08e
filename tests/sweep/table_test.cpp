// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "fsllm/sweep/report.hpp"

namespace fsllm {
namespace {

/// numpy.mean and numpy.std(ddof=1) of these.
TEST(Table, MeanAndDeviation) {
  auto const three = measure({3.25, 3.5, 4.0});
  EXPECT_DOUBLE_EQ(three.mean, 3.5833333333333335);
  EXPECT_DOUBLE_EQ(three.deviation.value(), 0.38188130791298669);
  auto const near = measure({1e9 + 1, 1e9 + 2, 1e9 + 3});
  EXPECT_DOUBLE_EQ(near.deviation.value(), 1.0) << "no cancellation";
  EXPECT_FALSE(measure({2.5}).deviation.has_value()) << "n - 1 is 0";
  EXPECT_EQ(measure({}).count, 0U);
}

TEST(Table, DecimalsFollowTheSmallestDeviation) {
  EXPECT_EQ(decimals_of({{2, 3.5, 0.4}}), 3) << "three at least";
  EXPECT_EQ(decimals_of({{2, 3.5, 0.4}, {2, 3.5, 0.00123}}), 4);
  EXPECT_EQ(decimals_of({{2, 3.5, 0.0000123}}), 6);
  EXPECT_EQ(decimals_of({{2, 3.5, 0.0}}), 3);
  EXPECT_EQ(decimals_of({{1, 3.5}}), 4);
  EXPECT_EQ(decimals_of({{1, 0.00042}}), 7);
}

TEST(Table, Cells) {
  Measure const m{2, 3.21456, 0.00217};
  EXPECT_EQ(cell_text(m, 4, false, TableFormat::markdown), "3.2146 ± 0.0022");
  EXPECT_EQ(cell_text(m, 4, true, TableFormat::markdown), "**3.2146** ± 0.0022");
  EXPECT_EQ(cell_text(m, 4, false, TableFormat::latex), "$3.2146 \\pm 0.0022$");
  EXPECT_EQ(cell_text(m, 4, true, TableFormat::latex), "$\\mathbf{3.2146} \\pm 0.0022$");
  EXPECT_EQ(cell_text({}, 4, false, TableFormat::markdown), "–");
  EXPECT_EQ(csv_number(0.5), "0.5000000000");
  EXPECT_EQ(csv_number(123456789012.0), "123456789012.000");
  EXPECT_EQ(csv_number(0), "0.000");
  EXPECT_EQ(csv_number(0.000012345678912), "0.00001234567891");
}

TEST(Table, TextsAreEscaped) {
  std::vector<std::vector<std::string>> const rows{{"a_b, \"50%\"", "$1$"}};
  EXPECT_EQ(table_text({"k|y", "m"}, rows, TableFormat::csv, 1), "k|y,m\n\"a_b, \"\"50%\"\"\",$1$\n");
  EXPECT_EQ(table_text({"k|y", "m"}, rows, TableFormat::markdown, 1),
            "| k\\|y | m |\n|---|---|\n| a_b, \"50%\" | $1$ |\n");
  EXPECT_EQ(table_text({"k_y", "m"}, rows, TableFormat::latex, 1),
            "\\begin{tabular}{ll}\n\\hline\nk\\_y & m \\\\\n\\hline\na\\_b, \"50\\%\" & $1$ "
            "\\\\\n\\hline\n\\end{tabular}\n");
}

}  // namespace
}  // namespace fsllm
