// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace at {
class Tensor;
}

namespace fsllm::test {

/// Every test of this program draws the same random tensors in every run, alone or among others.
void seed_each_test();

/// A fresh folder, removed at the end of the test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  std::filesystem::path const& path() const { return path_; }
  std::filesystem::path operator/(std::string const& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A file or folder of the real test data (FSLLM_TEST_DATA), or an empty path where it is absent.
std::filesystem::path test_data(std::string const& relative);
/// A file of this repository.
std::filesystem::path source_file(std::string const& relative);

/// Largest absolute difference at most `tolerance`; the failure names the first index that is off.
testing::AssertionResult tensors_near(at::Tensor const& actual, at::Tensor const& expected, double tolerance);

}  // namespace fsllm::test

/// Runs the statement and expects a fsllm::Error whose message contains `text`.
#define EXPECT_ERROR(statement, text)                                          \
  do {                                                                         \
    try {                                                                      \
      statement;                                                               \
      ADD_FAILURE() << "no error; expected: " << (text);                       \
    } catch (fsllm::Error const& caught_error) {                               \
      EXPECT_THAT(std::string(caught_error.what()), testing::HasSubstr(text)); \
    }                                                                          \
  } while (false)

/// Skips the test where the real test data is absent.
#define FSLLM_NEED_TEST_DATA(relative) \
  if (fsllm::test::test_data(relative).empty()) GTEST_SKIP() << "no test data: " << (relative)
