// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/io/h5.hpp"
#include "h5_types.hpp"

namespace fsllm::h5 {
namespace {

/// Deflate shrinks at most 1032 : 1, so a longer data set than this is a lie of the header.
constexpr uint64_t kLargestInflation = 1100;

constexpr int64_t kConvertedAtOnce = int64_t{1} << 20;  ///< values that are converted at once

/// Selects [begin, begin + count) in a data set's space.
Id select(Id const& dataset, int64_t begin, size_t count) {
  Id space(H5Dget_space(dataset.get()), &H5Sclose);
  hsize_t const start = static_cast<hsize_t>(begin), size = count;
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &size, nullptr);
  return space;
}

Id memory_space(size_t count) {
  hsize_t const size = count;
  return Id(H5Screate_simple(1, &size, nullptr), &H5Sclose);
}

}  // namespace

Id File::open_dataset(std::string const& dataset) const {
  Id const access = within_file(H5P_DATASET_ACCESS);  // closing it clears the reason
  Id opened(H5Dopen2(file_.get(), dataset.c_str(), access.get()), &H5Dclose);
  if (!opened) fail_reading("data set " + dataset);
  Id const creation(H5Dget_create_plist(opened.get()), &H5Pclose);
  FSLLM_CHECK(H5Pget_layout(creation.get()) != H5D_VIRTUAL && H5Pget_external_count(creation.get()) == 0,
              "data set {} of {} names other files for its values (what a file holds, it must hold itself). "
              "Make the file again.",
              dataset, path_.string());
  return opened;
}

int64_t File::length(std::string const& dataset) const {
  Id const opened = open_dataset(dataset);
  Id const space(H5Dget_space(opened.get()), &H5Sclose);
  FSLLM_CHECK(H5Sget_simple_extent_ndims(space.get()) == 1,
              "data set {} of {} is not one-dimensional (this program writes no other). Make the file again.",
              dataset, path_.string());
  hsize_t length = 0;
  H5Sget_simple_extent_dims(space.get(), &length, nullptr);
  Id const type(H5Dget_type(opened.get()), &H5Tclose);
  hsize_t file_size = 0;
  H5Fget_filesize(file_.get(), &file_size);
  FSLLM_CHECK(length <= file_size * kLargestInflation / std::max<size_t>(H5Tget_size(type.get()), 1),
              "data set {} of {} claims {} elements (more than the file can hold). Make the file again.",
              dataset, path_.string(), length);
  return static_cast<int64_t>(length);
}

std::string File::type_of(std::string const& dataset) const {
  Id const opened = open_dataset(dataset);
  Id const type(H5Dget_type(opened.get()), &H5Tclose);
  auto const bits = 8 * H5Tget_size(type.get());
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER:
      return fmt::format("{}int{}", H5Tget_sign(type.get()) == H5T_SGN_NONE ? "u" : "", bits);
    case H5T_ENUM:  // numpy's truth values are one of int8 in h5py
      return bits == 8 ? "int8" : "other";
    case H5T_FLOAT:
      return fmt::format("float{}", bits);
    default:
      return "other";
  }
}

template <class T>
void File::allocate(std::string const& dataset, int64_t length) {
  auto const size = static_cast<hsize_t>(length);
  Id const space(H5Screate_simple(1, &size, nullptr), &H5Sclose);
  Id const links(H5Pcreate(H5P_LINK_CREATE), &H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  Id const creation(H5Pcreate(H5P_DATASET_CREATE), &H5Pclose);
  H5Pset_obj_track_times(creation.get(), false);
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  Id const made(H5Dcreate2(file_.get(), dataset.c_str(), stored_type<T>(), space.get(), links.get(),
                           creation.get(), H5P_DEFAULT),
                &H5Dclose);
  if (!made) fail_writing("data set " + dataset);
}

template <class T>
void File::write_at(std::string const& dataset, int64_t begin, std::span<T const> values) {
  if (values.empty()) return;
  Id const opened = open_dataset(dataset);
  Id const space = select(opened, begin, values.size()), memory = memory_space(values.size());
  if (H5Dwrite(opened.get(), memory_type<T>(), memory.get(), space.get(), H5P_DEFAULT, values.data()) < 0)
    fail_writing("data set " + dataset);
}

template <class T>
void File::write_span(std::string const& dataset, std::span<T const> values) {
  allocate<T>(dataset, static_cast<int64_t>(values.size()));
  write_at<T>(dataset, 0, values);
}

template <class T>
void File::read_into(std::string const& dataset, int64_t begin, std::span<T> values) const {
  int64_t const stored = length(dataset), count = static_cast<int64_t>(values.size());
  std::string const type = type_of(dataset);
  FSLLM_CHECK(type == type_name<T>(), "data set {} of {} holds {} ({} expected). Make the file again.",
              dataset, path_.string(), type, type_name<T>());
  FSLLM_CHECK(begin >= 0 && begin <= stored && count <= stored - begin,
              "data set {} of {} has {} elements ({} from {} on are wanted). Make the file again.", dataset,
              path_.string(), stored, count, begin);
  if (!values.empty()) read_as<T>(dataset, begin, values);
}

template <class T>
void File::read_as(std::string const& dataset, int64_t begin, std::span<T> values) const {
  Id const opened = open_dataset(dataset);
  Id const space = select(opened, begin, values.size()), memory = memory_space(values.size());
  if (H5Dread(opened.get(), memory_type<T>(), memory.get(), space.get(), H5P_DEFAULT, values.data()) < 0)
    fail_reading("data set " + dataset);
}

template <class T>
std::vector<T> File::read(std::string const& dataset, int64_t begin, int64_t count) const {
  FSLLM_CHECK(count >= 0 && count <= length(dataset),
              "data set {} of {} has {} elements ({} are wanted). Make the file again.", dataset,
              path_.string(), length(dataset), count);
  std::vector<T> values(static_cast<size_t>(count));
  read_into<T>(dataset, begin, values);
  return values;
}

template <class T>
std::vector<T> File::read(std::string const& dataset) const {
  return read<T>(dataset, 0, length(dataset));
}

template <class T>
std::vector<T> File::integers(std::string const& dataset) const {
  auto const type = type_of(dataset);
  if (type == type_name<T>()) return read<T>(dataset);
  FSLLM_CHECK(type.starts_with("int") || type.starts_with("uint"),
              "data set {} of {} holds {} (whole numbers expected). Make the file again.", dataset,
              path_.string(), type);
  int64_t const count = length(dataset);
  std::vector<T> values(static_cast<size_t>(count));
  std::vector<int64_t> block(static_cast<size_t>(std::min(count, kConvertedAtOnce)));
  for (int64_t begin = 0; begin < count; begin += kConvertedAtOnce) {
    auto const part = std::span(block).first(static_cast<size_t>(std::min(count - begin, kConvertedAtOnce)));
    read_as(dataset, begin, part);
    for (size_t i = 0; i < part.size(); ++i) {
      FSLLM_CHECK(std::in_range<T>(part[i]), "data set {} of {} holds {} ({} expected). Make the file again.",
                  dataset, path_.string(), part[i], type_name<T>());
      values[static_cast<size_t>(begin) + i] = static_cast<T>(part[i]);
    }
  }
  return values;
}

void File::write_text(std::string const& dataset, std::string_view text) {
  write_span<uint8_t>(dataset, {reinterpret_cast<uint8_t const*>(text.data()), text.size()});
}

std::string File::read_text(std::string const& dataset) const {
  std::string text(static_cast<size_t>(length(dataset)), '\0');
  read_into<uint8_t>(dataset, 0, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
  return text;
}

#define FSLLM_H5_TYPE(T)                                                             \
  template void File::allocate<T>(std::string const&, int64_t);                      \
  template void File::write_at<T>(std::string const&, int64_t, std::span<T const>);  \
  template void File::write_span<T>(std::string const&, std::span<T const>);         \
  template std::vector<T> File::read<T>(std::string const&) const;                   \
  template std::vector<T> File::read<T>(std::string const&, int64_t, int64_t) const; \
  template void File::read_into<T>(std::string const&, int64_t, std::span<T>) const;
FSLLM_H5_TYPE(uint8_t)
FSLLM_H5_TYPE(uint16_t)
FSLLM_H5_TYPE(int32_t)
FSLLM_H5_TYPE(uint32_t)
FSLLM_H5_TYPE(int64_t)
FSLLM_H5_TYPE(float)
FSLLM_H5_TYPE(double)
#undef FSLLM_H5_TYPE
template std::vector<uint8_t> File::integers(std::string const&) const;
template std::vector<int32_t> File::integers(std::string const&) const;
template std::vector<int64_t> File::integers(std::string const&) const;

}  // namespace fsllm::h5
