// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "fsllm/core/rng.hpp"

namespace fsllm {

/// U [m, n], σ [n] from the largest, Vᵀ [n, k], in float64. Of each pair the largest element of Vᵀ's row is
/// positive, so that the same values have the same signs.
struct Svd {
  at::Tensor u, s, vt;
};

/// SVD of left [m, n] · right [n, k], n ≤ min(m, k) or not, from QR of both and an SVD of their small core:
/// the product itself is never formed.
Svd svd_of_product(at::Tensor const& left, at::Tensor const& right);

/// The `rank` largest of a dense matrix: all of it up to 1024 rows or columns; of larger ones by subspace
/// iteration from `random` columns (Halko et al. 2011, algorithm 4.4, 16 columns more and 4 iterations).
Svd largest_of(at::Tensor const& matrix, int64_t rank, Philox random);

/// [rows, columns] of N(0, 1) in float64.
at::Tensor normal_matrix(int64_t rows, int64_t columns, Philox random);

/// Factors B [m, rank] and A [rank, k] of s B A.
struct Factors {
  at::Tensor b, a;
};
/// What a PEFT folder of LoRA adds to each module, s B A, with s in B; float64. DoRA and other methods are
/// Errors.
std::map<std::string, Factors> read_lora_factors(std::filesystem::path const& dir);

/// s B A = the `rank` largest of U Σ Vᵀ (zeros where there are less), with B = UΣ/s and an orthonormal A.
Factors orthonormal_factors(Svd const& svd, int64_t rank, double s);
/// The same with Σ in equal parts: B = U √(Σ/s), A = √(Σ/s) Vᵀ.
Factors balanced_factors(Svd const& svd, int64_t rank, double s);

}  // namespace fsllm
