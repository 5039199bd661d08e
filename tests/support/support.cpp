// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <ATen/ATen.h>
#include <stdlib.h>

namespace fsllm::test {

namespace {

/// LibTorch seeds its generator by chance.
class SeedListener : public testing::EmptyTestEventListener {
  void OnTestStart(testing::TestInfo const& /*test*/) override { at::manual_seed(0); }
};

}  // namespace

void seed_each_test() {
  testing::UnitTest::GetInstance()->listeners().Append(new SeedListener);
}

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "fsllm_test_XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path test_data(std::string const& relative) {
  char const* root = std::getenv("FSLLM_TEST_DATA");
  if (root == nullptr) return {};
  auto path = std::filesystem::path(root) / relative;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

std::filesystem::path source_file(std::string const& relative) {
  char const* root = std::getenv("FSLLM_SOURCE_DIR");
  return std::filesystem::path(root != nullptr ? root : ".") / relative;
}

testing::AssertionResult tensors_near(at::Tensor const& actual, at::Tensor const& expected,
                                      double tolerance) {
  if (actual.sizes() != expected.sizes())
    return testing::AssertionFailure() << "shape " << actual.sizes() << " instead of " << expected.sizes();
  auto a = actual.detach().to(at::kDouble).flatten(), e = expected.detach().to(at::kDouble).flatten();
  auto off = (a - e).abs();
  if (off.numel() == 0) return testing::AssertionSuccess();
  if (!at::isfinite(off).all().item<bool>()) return testing::AssertionFailure() << "not finite";
  double const worst = off.max().item<double>();
  if (worst <= tolerance) return testing::AssertionSuccess() << "largest difference " << worst;
  auto const first = (off > tolerance).nonzero()[0].item<int64_t>();
  return testing::AssertionFailure() << "largest difference " << worst << " > " << tolerance
                                     << "; first at flat index " << first << ": " << a[first].item<double>()
                                     << " instead of " << e[first].item<double>();
}

}  // namespace fsllm::test
