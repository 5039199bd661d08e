// SPDX-License-Identifier: Apache-2.0
// The event file's bytes; tests/e2e/reports_test.cpp reads a run's file by the tensorboard package.
#include "fsllm/io/tensorboard.hpp"

#include "support.hpp"

namespace fsllm {
namespace {

std::string bytes_of(std::string const& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST(EventFile, ChecksumsAreThoseOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
}

/// What torch.utils.tensorboard writes for the same time and point.
TEST(EventFile, RecordsHaveTheBytesOfTheTensorboardPackage) {
  EXPECT_EQ(event_file_header(1700000000.5),
            bytes_of("1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110"));
  EXPECT_EQ(event_record({"train/loss_per_token", 300, 2.5, 1700000000.5}),
            bytes_of("2b00000000000000861bc34b0900002040fc54d94110ac022a1d0a1b0a14747261696e2f6c6f7373"
                     "5f7065725f746f6b656e1500002040f7624892"));
}

TEST(EventFile, TellsItsTime) {
  auto const file = event_file_header(1700000000.25) + event_record({"a", 1, 2, 3});
  EXPECT_EQ(time_of_event_file(file), 1700000000.25);
  EXPECT_FALSE(time_of_event_file(file.substr(0, 30)));
  EXPECT_FALSE(time_of_event_file(event_record({"a", 1, 2, 3})));
  EXPECT_FALSE(time_of_event_file(""));
}

}  // namespace
}  // namespace fsllm
