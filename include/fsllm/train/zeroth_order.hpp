// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Which random direction z: N(0, 1) for each element of each parameter, a function of this, the parameter's
/// name and the element's number alone. It is drawn again wherever it is needed, and never there as a whole.
struct PerturbationKey {
  uint64_t seed = 0;
  int64_t client = 0, round = 0, step = 0;
};

/// One step of MeZO: w ← w - rate · slope · z. Both are 0 where it was skipped.
struct ZerothOrderMove {
  double slope = 0, rate = 0;
};

/// parameter += factor · z.
void add_normal(at::Tensor const& parameter, double factor, std::string const& name,
                PerturbationKey const& key);

/// `loss` at w + εz and at w - εz, w being the values of `parameters`, which are w again afterwards (MeZO,
/// Malladi et al. 2023, algorithm 1). A copy of w waits meanwhile, so that no rounding of ±εz stays in it.
std::pair<double, double> losses_around(TensorMap const& parameters, PerturbationKey const& key, double eps,
                                        std::function<double()> const& loss);

}  // namespace fsllm
