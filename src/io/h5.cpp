// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/h5.hpp"

#include <hdf5.h>
#include <unistd.h>

#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
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

/// Instead of opening the file that an external link names.
herr_t refuse_link(char const*, char const*, char const* file, char const*, unsigned*, hid_t, void*) {
  H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_LINK, H5E_TRAVERSE,
           "it is a link to another file, %s", file);
  return -1;
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

}  // namespace

Id within_file(int64_t list_class) {
  Id access = list(list_class);
  H5Pset_elink_cb(access.get(), refuse_link, nullptr);
  return access;
}

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
    refuse_special_file(path);
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
  Id const access = within_file(H5P_LINK_ACCESS);
  for (size_t slash = object.find('/', 1);; slash = object.find('/', slash + 1)) {
    if (H5Lexists(file_.get(), object.substr(0, slash).c_str(), access.get()) <= 0) return false;
    if (slash == std::string::npos) return H5Oexists_by_name(file_.get(), object.c_str(), access.get()) > 0;
  }
}

std::vector<std::string> File::children(std::string const& group) const {
  std::vector<std::string> names;
  auto const take = [](hid_t, char const* name, H5L_info_t const*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  hsize_t index = 0;
  Id const access = within_file(H5P_GROUP_ACCESS);
  Id const opened(H5Gopen2(file_.get(), group.c_str(), access.get()), &H5Gclose);
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

void File::close() {
  if (mode_ == Mode::create && H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0) fail_writing("the end");
  if (!file_.close()) fail_writing("the end");
}

}  // namespace fsllm::h5
