// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  fsllm::test::seed_each_test();
  return RUN_ALL_TESTS();
}
