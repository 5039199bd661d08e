// SPDX-License-Identifier: Apache-2.0
// Parquet files of pyarrow (tests/reference/make_parquet_fixtures.py) and of our own writer, whole and
// damaged.
#include "fsllm/io/parquet.hpp"

#include <dlfcn.h>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "parquet_writer.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using testing::ElementsAre;

std::filesystem::path fixture(std::string const& name) {
  return test::source_file("tests/fuzz/corpus/parquet/" + name + ".parquet");
}

/// "row number:JSON" of each row, and "row number+rows:bad" of those that cannot be read.
std::vector<std::string> rows_of(std::filesystem::path const& path,
                                 std::vector<std::string> const& columns = {},
                                 std::function<bool(int64_t)> wanted = {}) {
  std::vector<std::string> lines;
  ParquetRows rows;
  rows.row = [&](json const& record, RecordPlace const& place) {
    lines.push_back(std::to_string(place.line) + ":" + record.dump());
  };
  rows.bad = [&](std::string const&, RecordPlace const& place, int64_t count) {
    lines.push_back(std::to_string(place.line) + "+" + std::to_string(count) + ":bad");
  };
  rows.wanted = std::move(wanted);
  for_each_parquet_row(path, columns, rows);
  return lines;
}

void read_strictly(std::filesystem::path const& path, std::vector<std::string> const& columns = {}) {
  for_each_parquet_row(path, columns, {[](json const&, RecordPlace const&) {}, {}, {}});
}

class Parquet : public testing::Test {
 protected:
  std::filesystem::path write(std::string const& bytes) {
    write_file_atomic(folder_ / "x.parquet", bytes);
    return folder_ / "x.parquet";
  }
  test::TempDir folder_;
};

TEST_F(Parquet, TextsAndNulls) {
  EXPECT_THAT(rows_of(fixture("texts")),
              ElementsAre(R"(1:{"answer":"#### 2","question":"What is 1 + 1?"})",
                          R"(2:{"answer":"","question":"b"})", R"(3:{"answer":"c","question":null})"));
  for (auto const* codec : {"snappy", "gzip", "zstd", "lz4", "brotli"})
    EXPECT_THAT(rows_of(fixture(codec)), ElementsAre(R"(1:{"text":"one"})", R"(2:{"text":"two"})")) << codec;
  EXPECT_THAT(rows_of(fixture("encodings")),
              ElementsAre(R"(1:{"n":1,"t":"aa"})", R"(2:{"n":2,"t":"ab"})", R"(3:{"n":4,"t":"ac"})"));
  EXPECT_THAT(rows_of(fixture("no_rows")), ElementsAre());
}

TEST_F(Parquet, ListsAndStructs) {
  EXPECT_THAT(
      rows_of(fixture("chat")),
      ElementsAre(R"(1:{"messages":[{"content":"Hi","role":"user"},{"content":"Yés.","role":"assistant"}]})",
                  R"(2:{"messages":null})", R"(3:{"messages":[]})"));
  EXPECT_THAT(rows_of(fixture("tokens")), ElementsAre(R"(1:{"input_ids":[1,2],"labels":[-100,2]})",
                                                      R"(2:{"input_ids":[3],"labels":[3]})"));
}

TEST_F(Parquet, OtherTypes) {
  EXPECT_THAT(rows_of(fixture("numbers")),
              ElementsAre(R"(1:{"b":true,"d":1.5,"f":0.5,"i":-1,"u":1})",
                          R"(2:{"b":null,"d":null,"f":null,"i":2,"u":18446744073709551615})"));
  EXPECT_THAT(rows_of(fixture("words")),
              ElementsAre(R"(1:{"category":"a"})", R"(2:{"category":"b"})", R"(3:{"category":"a"})"));
  EXPECT_THAT(rows_of(fixture("views")),
              ElementsAre(R"(1:{"n":[1],"t":"a text longer than twelve"})", R"(2:{"n":[2],"t":"b"})"));
  EXPECT_THAT(
      rows_of(fixture("others"), {"at", "day", "none", "price"}),
      ElementsAre(R"(1:{"at":"2024-01-31 12:00:00.000000","bytes":null,"day":"2024-01-31","none":null,)"
                  R"("price":"1.20"})"));
}

TEST_F(Parquet, WhatJsonCannotHold) {
  EXPECT_THAT(rows_of(fixture("others")), ElementsAre("1+1:bad"));
  EXPECT_ERROR(read_strictly(fixture("others")), "others.parquet:row 1: column 'bytes': ill-formed UTF-8");
  EXPECT_ERROR(read_strictly(fixture("map")), "map.parquet: column 'm' is of type map<string, int64");
  EXPECT_ERROR(read_strictly(fixture("map")),
               ", which has no counterpart in JSON. Convert it, or leave it out.");
  EXPECT_THAT(rows_of(fixture("map"), {"text"}), ElementsAre(R"(1:{"m":null})"));
}

TEST_F(Parquet, RowGroupsNobodyWantsAreNotRead) {
  auto const odd = rows_of(fixture("groups"), {}, [](int64_t row) { return row % 2 == 1; });
  EXPECT_THAT(
      odd, ElementsAre(R"(2:{"text":"1"})", R"(4:{"text":"3"})", R"(6:{"text":"5"})", R"(8:{"text":"7"})"));
  auto bytes = read_file(fixture("groups"));
  auto const three =
      bytes.find(std::string("\x01\0\0\0"
                             "3",
                             5));
  ASSERT_NE(three, std::string::npos);
  bytes[three + 4] = 'x';
  auto const path = write(bytes);
  EXPECT_THAT(rows_of(path, {}, [](int64_t row) { return row != 3 && row != 4 && row != 5; }).size(), 5U);
  EXPECT_THAT(rows_of(path), ElementsAre(R"(1:{"text":"0"})", R"(2:{"text":"1"})", R"(3:{"text":"2"})",
                                         "4+3:bad", R"(7:{"text":"6"})", R"(8:{"text":"7"})"));
  EXPECT_THAT(rows_of(path, {}, [](int64_t row) { return row == 4; }), ElementsAre("5+1:bad"));
  EXPECT_ERROR(read_strictly(path), "x.parquet:row 4: the Parquet rows 4 to 6 cannot be read (");
}

TEST_F(Parquet, FilesThatAreNotWhole) {
  auto const whole = read_file(fixture("texts"));
  for (size_t size = 1; size < whole.size(); ++size)
    EXPECT_ERROR(read_strictly(write(whole.substr(0, size))), "x.parquet: not a whole Parquet file (");
  EXPECT_ERROR(read_strictly(write("")),
               "x.parquet: not a whole Parquet file (it is empty). Copy the file again.");
  EXPECT_ERROR(read_strictly(write("version https://git-lfs.github.com/spec/v1\n")), "run git lfs pull");
  EXPECT_ERROR(read_strictly(write(std::string(5000, 'x'))), "Parquet magic bytes not found");
  EXPECT_ERROR(read_strictly(folder_ / "absent.parquet"), "absent.parquet");
}

/// Longer than a batch, with rows of very different lengths.
TEST_F(Parquet, ManyRowsInBoundedBatches) {
  std::vector<json> rows;
  for (int i = 0; i < 5000; ++i)
    rows.push_back({{"text", std::string(static_cast<size_t>(i % 7 == 0 ? 20000 : i % 50), 'a')}, {"n", i}});
  for (int64_t const group : {int64_t{700}, int64_t{100000}}) {
    auto const path = write(test::parquet(rows, {group, group == 700}));
    int64_t next = 0;
    ParquetRows take;
    take.row = [&](json const& record, RecordPlace const& place) {
      EXPECT_EQ(place.line, next + 1);
      EXPECT_EQ(record, rows[static_cast<size_t>(next++)]);
    };
    EXPECT_EQ(for_each_parquet_row(path, {}, take), 5000);
    EXPECT_EQ(next, 5000);
  }
}

/// The wheel's libarrow exports an OpenSSL of its own, which must not stand in for the system's.
TEST_F(Parquet, OpenSslIsTheSystems) {
  for (auto const* name : {"EVP_sha256", "EVP_DigestInit_ex", "RAND_bytes", "HMAC"}) {
    Dl_info info{};
    ASSERT_NE(dladdr(dlsym(RTLD_DEFAULT, name), &info), 0) << name;
    EXPECT_THAT(info.dli_fname, testing::HasSubstr("libcrypto")) << name;
  }
}

}  // namespace
}  // namespace fsllm
