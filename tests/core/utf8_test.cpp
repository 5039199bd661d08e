// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/utf8.hpp"

#include <gtest/gtest.h>

namespace fsllm {
namespace {

TEST(Printable, KeepsTextAndShowsWhatWouldActOnATerminal) {
  EXPECT_EQ(printable("a\tb\nGr\xC3\xB6\xC3\x9F"
                      "e \xE2\x9C\x93"),
            "a\tb\nGr\xC3\xB6\xC3\x9F"
            "e \xE2\x9C\x93");
  EXPECT_EQ(printable("\x1B[31mred\r\a\x7F"), "\\x1B[31mred\\x0D\\x07\\x7F");
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xC2\x9B"
                      "2J"),
            "\\x9B"
            "2J");  // C1: CSI in one character
  EXPECT_EQ(printable("a\xE2\x80\xAE"
                      "b"),
            "a\\u202E"
            "b");
  EXPECT_EQ(printable("\xFF\xC3"), "\\xFF\\xC3");
}

}  // namespace
}  // namespace fsllm
