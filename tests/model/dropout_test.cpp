// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/dropout.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <limits>

#include "dropout_masks.hpp"
#include "fsllm/core/rng.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// `count` lines of one row, place after place.
DropoutLines places(int64_t count, int64_t seed, int64_t row) {
  return {at::full({count}, seed, at::kLong), at::full({count}, row, at::kLong),
          at::arange(count, at::kLong)};
}

detail::MaskBlocks some_blocks(int64_t lines, int64_t width) {
  auto const any = [&](int64_t from, int64_t end) { return at::randint(from, end, {lines}, at::kLong); };
  int64_t const most = std::numeric_limits<int64_t>::max();
  return {any(-most, most), any(0, 1 << 20), any(0, 1 << 20), any(0, 64), width, 0xe0000001U};
}

/// Element by element what dropout.hpp says, with core's Philox.
TEST(Dropout, KeepsWherePhiloxIsBelowTheThreshold) {
  double const probability = 0.3;
  auto const threshold = static_cast<uint32_t>(std::floor((1 - probability) * 4294967296.0));
  int64_t const seeds[] = {-81985529216486896, 7}, rows[] = {5, 6};
  DropoutLines const lines{at::tensor({seeds[0], seeds[1]}, at::kLong).view({2, 1, 1}),
                           at::tensor({rows[0], rows[1]}, at::kLong).view({2, 1, 1}),
                           at::arange(4, 7, at::kLong), at::arange(3, at::kLong).view({3, 1})};
  for (int64_t const width : {1, 4, 6, 63, 64, 65, 130}) {
    auto const mask = keep_mask(lines, width, probability, "a site");
    ASSERT_EQ(mask.sizes().vec(), (std::vector<int64_t>{2, 3, 3, width}));
    for (int64_t row = 0; row < 2; ++row)
      for (int64_t head = 0; head < 3; ++head)
        for (int64_t place = 0; place < 3; ++place)
          for (int64_t element = 0; element < width; ++element) {
            auto const key = static_cast<uint64_t>(seeds[row]) ^ hash_of("a site");
            auto const block =
                philox4x32({static_cast<uint32_t>(element / 4), static_cast<uint32_t>(4 + place),
                            static_cast<uint32_t>(rows[row]), static_cast<uint32_t>(head)},
                           {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
            ASSERT_EQ(mask[row][head][place][element].item<bool>(),
                      block[static_cast<size_t>(element % 4)] < threshold)
                << width << ": " << row << head << place << element;
          }
  }
}

/// The last of them needs more than one part of lines in the form of tensors.
TEST(Dropout, LoopAndTensorsGiveTheSameMasks) {
  for (auto const& [lines, width] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 5}, {40, 64}, {7, 131}, {1100, 4099}}) {
    auto const blocks = some_blocks(lines, width);
    EXPECT_TRUE(at::equal(mask_by_loop(blocks), mask_by_tensors(blocks))) << lines << " x " << width;
  }
}

TEST(Dropout, KeepsItsShare) {
  for (double const probability : {0.05, 0.1, 0.5, 0.9}) {
    auto const mask = keep_mask(places(1000, 3, 0), 1000, probability, "a site");
    double const share = mask.to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(share, 1 - probability, 5 * std::sqrt(probability * (1 - probability) / 1e6)) << probability;
  }
}

/// Two masks of independent elements agree in p² + (1 - p)² of them.
TEST(Dropout, MasksOfDifferentSitesRowsPlacesAndSeedsAreIndependent) {
  double const p = 0.4, agree = p * p + (1 - p) * (1 - p), sigma = std::sqrt(agree * (1 - agree) / 1e6);
  auto const draw = [&](int64_t seed, int64_t row, std::string const& site) {
    return keep_mask(places(1000, seed, row), 1000, p, site);
  };
  auto const mask = draw(3, 0, "layers.0.q_proj");
  auto const share = [&](at::Tensor const& a, at::Tensor const& b) {
    return a.eq(b).to(at::kDouble).mean().item<double>();
  };
  EXPECT_NEAR(share(mask, draw(3, 0, "layers.1.q_proj")), agree, 5 * sigma);
  EXPECT_NEAR(share(mask, draw(3, 0, "layers.0.k_proj")), agree, 5 * sigma);
  EXPECT_NEAR(share(mask, draw(3, 1, "layers.0.q_proj")), agree, 5 * sigma);
  EXPECT_NEAR(share(mask, draw(4, 0, "layers.0.q_proj")), agree, 5 * sigma);
  EXPECT_NEAR(share(mask.narrow(0, 1, 999), mask.narrow(0, 0, 999)), agree, 5 * sigma) << "places";
  EXPECT_NEAR(share(mask.narrow(1, 1, 999), mask.narrow(1, 0, 999)), agree, 5 * sigma) << "elements";
  EXPECT_NEAR(share(mask.narrow(1, 4, 996), mask.narrow(1, 0, 996)), agree, 5 * sigma) << "blocks";
  auto lines = places(1000, 3, 0);
  lines.head = at::full({1000}, 1, at::kLong);
  EXPECT_NEAR(share(mask, keep_mask(lines, 1000, p, "layers.0.q_proj")), agree, 5 * sigma) << "heads";
  EXPECT_TRUE(at::equal(mask, draw(3, 0, "layers.0.q_proj")));
}

}  // namespace
}  // namespace fsllm
