// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "fsllm/sweep/sweep.hpp"

namespace fsllm {

/// A Gaussian process over the unit cube (Matérn 5/2 kernel, one length for all coordinates, chosen with the
/// noise by the largest marginal likelihood on a grid; Rasmussen & Williams 2006, 2.2 and 4.2). Values are
/// standardised inside; the prior mean is theirs.
class GaussianProcess {
 public:
  GaussianProcess(std::vector<std::vector<double>> points, std::vector<double> const& values);
  struct Belief {
    double mean = 0, deviation = 0;
  };
  Belief at(std::vector<double> const& point) const;

 private:
  double fit(double length, double noise);
  std::vector<std::vector<double>> points_;
  std::vector<double> scaled_;
  double mean_ = 0, scale_ = 1, length_ = 1, noise_ = 1e-3;
  std::vector<double> factor_;  ///< Cholesky factor of the kernel matrix, rows
  std::vector<double> weights_;
};

/// How much smaller than `best` a value of this belief is expected to be (Jones et al. 1998):
/// (best − μ) Φ(z) + σ φ(z), z = (best − μ)/σ.
double expected_improvement(GaussianProcess::Belief const& belief, double best);

/// The point of the next setting: drawn as long as there are fewer than `initial` results, then where a
/// process over the results (smaller is better; what is not known yet counts as their mean) expects the
/// largest improvement among drawn points and neighbours of the best one. `n` is the setting's number.
std::vector<double> next_point(SweepSpec const& spec, std::vector<std::vector<double>> const& points,
                               std::vector<std::optional<double>> const& values, size_t n);

/// Chooses settings of a Bayesian sweep, if results allow more, and keeps them in .sweep/settings.json: up to
/// that of run `index`, else one more where all chosen runs are taken.
void choose_settings(Sweep& sweep, std::optional<size_t> index);

}  // namespace fsllm
