// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/delimited.hpp"

#include <fmt/ranges.h>

#include "support.hpp"

namespace fsllm {
namespace {

/// "1:[a, b]" a record, "3!why" a broken one.
std::vector<std::string> read(std::string const& text, size_t piece = 1000, char separator = 0,
                              RecordLimits limits = {}) {
  std::vector<std::string> found;
  DelimitedRecords records(
      "x.csv", separator,
      [&](std::vector<std::string>&& fields, RecordPlace const& place) {
        found.push_back(fmt::format("{}:[{}]", place.line, fmt::join(fields, "|")));
      },
      [&](std::string const& why, RecordPlace const& place) {
        found.push_back(fmt::format("{}!{}", place.line, why));
      },
      limits);
  for (size_t at = 0; at < text.size(); at += piece) records.feed(std::string_view(text).substr(at, piece));
  records.finish();
  return found;
}

using Texts = std::vector<std::string>;

TEST(Delimited, QuotesSeparatorsAndLineEndsInPiecesOfAnySize) {
  std::string const text =
      "\xEF\xBB\xBFq,a\r\n\"one, \"\"two\"\"\",\"line\nend\"\n\n,\nplain \"x\", y \r\n\"\",last";
  Texts const expected{"1:[q|a]", "2:[one, \"two\"|line\nend]", "5:[|]", "6:[plain \"x\"| y ]", "7:[|last]"};
  for (size_t const piece : {1, 2, 3, 7, 1000}) EXPECT_EQ(read(text, piece), expected) << piece;
}

TEST(Delimited, TheFirstLineTellsTheSeparator) {
  EXPECT_EQ(read("a;b\n1;2,5\n"), (Texts{"1:[a|b]", "2:[1|2,5]"}));
  EXPECT_EQ(read("a\tb\n1\t2\n"), (Texts{"1:[a|b]", "2:[1|2]"}));
  EXPECT_EQ(read("\"a;b;c\",d\n1,2\n"), (Texts{"1:[a;b;c|d]", "2:[1|2]"}));
  EXPECT_EQ(read("one\ntwo\n"), (Texts{"1:[one]", "2:[two]"}));
  EXPECT_EQ(read("a;b,c\n", 1000, ';'), (Texts{"1:[a|b,c]"}));
}

TEST(Delimited, BrokenRecordsAreNamedAndTheNextOnesRead) {
  EXPECT_EQ(read("a,b\n\"x\"y,z\nc,d\n"),
            (Texts{"1:[a|b]", "2!text behind a closing quote (a separator or the end of the line is needed)",
                   "3:[c|d]"}));
  EXPECT_EQ(read("a,b\n\"x,y\nz"), (Texts{"1:[a|b]", "2!a quote that is never closed"}));
  EXPECT_EQ(read("a\n\xFF\nb\n"), (Texts{"1:[a]", "2!broken UTF-8", "3:[b]"}));
  EXPECT_EQ(read(std::string("a\nx\0y\nb\n", 8)),
            (Texts{"1:[a]", "2!a NUL byte (this is no text)", "3:[b]"}));
}

TEST(Delimited, LimitsEndTheStream) {
  RecordLimits limits;
  limits.record_bytes = 8;
  EXPECT_EQ(read("a,b\n0123456789,0\nc,d\n", 1000, 0, limits),
            (Texts{"1:[a|b]", "2!a record of more than 8 bytes (data.max_line_bytes)"}));
  limits.record_bytes = 1000;
  limits.file_bytes = 10;
  auto const found = read("a,b\nc,d\ne,f\ng,h\n", 4, 0, limits);
  EXPECT_EQ(found.back(), "3!the file has more than 10 bytes unpacked (data.max_file_bytes)");
}

TEST(Delimited, NothingIsNoRecord) {
  EXPECT_TRUE(read("").empty());
  EXPECT_TRUE(read("\n\r\n\n").empty());
}

}  // namespace
}  // namespace fsllm
