// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/h5.hpp"

#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/error.hpp"
#include "h5_types.hpp"

namespace fsllm::h5 {
namespace {

/// HDF5 keeps quiet (its messages become ours), and does not run its own clean-up at exit: every identifier
/// is closed by Id, and closing again what a full disk left half written could crash there.
void prepare_library() {
  static bool const done = [] {
    H5dont_atexit();
    return H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  }();
  static_cast<void>(done);
}

/// The reason nearest to the cause in HDF5's error stack; of failed system calls just the system's words.
std::string reason() {
  std::string text;
  auto const take = [](unsigned, H5E_error2_t const* entry, void* into) -> herr_t {
    if (entry->desc != nullptr) *static_cast<std::string*>(into) = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, take, &text);
  std::string const label = "error message = '";
  if (size_t const at = text.find(label); at != std::string::npos) {
    size_t const begin = at + label.size();
    return text.substr(begin, text.find('\'', begin) - begin);
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

Id list(hid_t list_class) {
  return Id(H5Pcreate(list_class), &H5Pclose);
}

Id file_access() {
  Id access = list(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), false, true);
#endif
  return access;
}

Id file_creation() {
  Id creation = list(H5P_FILE_CREATE);
  H5Pset_obj_track_times(creation.get(), false);
  return creation;
}

/// Deflate shrinks at most 1032 : 1, so a longer data set than this is a lie of the header.
constexpr uint64_t kLargestInflation = 1100;

}  // namespace

Id::Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Id& Id::operator=(Id&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

Id::~Id() {
  close();
}

bool Id::close() {
  return id_ < 0 || close_(std::exchange(id_, -1)) >= 0;
}

File::File(std::filesystem::path const& path, Mode mode) : path_(path), mode_(mode) {
  prepare_library();
  Id const access = file_access();
  if (mode == Mode::read) {
    file_ = Id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), &H5Fclose);
    if (!file_) fail_reading("the file");
  } else {
    file_ = Id(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, file_creation().get(), access.get()), &H5Fclose);
    if (!file_) fail_writing("the file");
  }
}

File::~File() {
  if (mode_ == Mode::read || !file_) return;
  void* handle = nullptr;
  if (H5Fget_vfd_handle(file_.get(), H5P_DEFAULT, &handle) >= 0 && handle != nullptr)
    static_cast<void>(!::ftruncate(*static_cast<int*>(handle), 0));
}

void File::fail_reading(std::string const& what) const {
  std::string const why = reason();
  fail(fmt::format(
      "cannot read {} of {} ({}). Check that it is a complete HDF5 file of this program, or make it again.",
      what, path_.string(), why));
}

void File::fail_writing(std::string const& what) const {
  std::string const why = reason();
  fail(fmt::format("cannot write {} of {} ({}). Check free space and permissions, or choose another folder.",
                   what, path_.string(), why));
}

bool File::exists(std::string const& object) const {
  if (object == "/") return true;
  for (size_t slash = object.find('/', 1);; slash = object.find('/', slash + 1)) {
    if (H5Lexists(file_.get(), object.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
    if (slash == std::string::npos) return H5Oexists_by_name(file_.get(), object.c_str(), H5P_DEFAULT) > 0;
  }
}

std::vector<std::string> File::children(std::string const& group) const {
  std::vector<std::string> names;
  auto const take = [](hid_t, char const* name, H5L_info_t const*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  hsize_t index = 0;
  Id const opened(H5Gopen2(file_.get(), group.c_str(), H5P_DEFAULT), &H5Gclose);
  if (!opened || H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_INC, &index, take, &names) < 0)
    fail_reading("group " + group);
  return names;
}

void File::make_group(std::string const& group) {
  Id const links = list(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links.get(), 1);
  Id const made(H5Gcreate2(file_.get(), group.c_str(), links.get(), H5P_DEFAULT, H5P_DEFAULT), &H5Gclose);
  if (!made) fail_writing("group " + group);
}

Id File::open_dataset(std::string const& dataset) const {
  Id opened(H5Dopen2(file_.get(), dataset.c_str(), H5P_DEFAULT), &H5Dclose);
  if (!opened) fail_reading("data set " + dataset);
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
  Id const links = list(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links.get(), 1);
  Id const creation = list(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(creation.get(), false);
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  Id const made(H5Dcreate2(file_.get(), dataset.c_str(), stored_type<T>(), space.get(), links.get(),
                           creation.get(), H5P_DEFAULT),
                &H5Dclose);
  if (!made) fail_writing("data set " + dataset);
}

namespace {

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
  if (values.empty()) return;
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

void File::write_text(std::string const& dataset, std::string_view text) {
  write_span<uint8_t>(dataset, {reinterpret_cast<uint8_t const*>(text.data()), text.size()});
}

std::string File::read_text(std::string const& dataset) const {
  std::string text(static_cast<size_t>(length(dataset)), '\0');
  read_into<uint8_t>(dataset, 0, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
  return text;
}

void File::close() {
  if (mode_ == Mode::create && H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0) fail_writing("the end");
  if (!file_.close()) fail_writing("the end");
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

}  // namespace fsllm::h5
