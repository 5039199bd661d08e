// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>

#include <optional>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/h5.hpp"
#include "h5_types.hpp"

namespace fsllm::h5 {
namespace {

std::string quoted(std::string const& object, std::string const& name) {
  return "attribute " + name + " of " + object;
}

/// A text of one length, padded by zeros or blanks; nothing where it cannot be read.
std::optional<std::string> fixed_text(Id const& attribute, Id const& type) {
  // One byte more than stored: a foreign file may lack the final zero.
  std::string value(H5Tget_size(type.get()) + 1, '\0');
  if (H5Aread(attribute.get(), type.get(), value.data()) < 0) return std::nullopt;
  value.resize(value.find('\0'));
  if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) value.resize(value.find_last_not_of(' ') + 1);
  return value;
}

/// A text of any length, as h5py writes Python's; nothing where it cannot be read.
std::optional<std::string> variable_text(Id const& attribute, Id const& type) {
  Id const in_memory(H5Tcopy(H5T_C_S1), &H5Tclose);
  H5Tset_size(in_memory.get(), H5T_VARIABLE);
  H5Tset_cset(in_memory.get(), H5Tget_cset(type.get()));
  char* text = nullptr;
  if (H5Aread(attribute.get(), in_memory.get(), &text) < 0) return std::nullopt;
  std::string value(text != nullptr ? text : "");
  H5free_memory(text);
  return value;
}

}  // namespace

Id File::open_attribute(std::string const& object, std::string const& name) const {
  Id const access = within_file(H5P_LINK_ACCESS);
  Id opened(H5Aopen_by_name(file_.get(), object.c_str(), name.c_str(), H5P_DEFAULT, access.get()), &H5Aclose);
  if (!opened) fail_reading(quoted(object, name));
  return opened;
}

Id File::make_attribute(std::string const& object, std::string const& name, Id const& type) {
  if (has_attribute(object, name)) H5Adelete_by_name(file_.get(), object.c_str(), name.c_str(), H5P_DEFAULT);
  Id const space(H5Screate(H5S_SCALAR), &H5Sclose);
  Id made(H5Acreate_by_name(file_.get(), object.c_str(), name.c_str(), type.get(), space.get(), H5P_DEFAULT,
                            H5P_DEFAULT, H5P_DEFAULT),
          &H5Aclose);
  if (!made) fail_writing(quoted(object, name));
  return made;
}

void File::set_attribute(std::string const& object, std::string const& name, std::string const& value) {
  Id const type(H5Tcopy(H5T_C_S1), &H5Tclose);
  H5Tset_size(type.get(), value.size() + 1);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  Id const made = make_attribute(object, name, type);
  if (H5Awrite(made.get(), type.get(), value.c_str()) < 0) fail_writing(quoted(object, name));
}

void File::set_attribute(std::string const& object, std::string const& name, int64_t value) {
  Id const type(H5Tcopy(H5T_STD_I64LE), &H5Tclose);
  Id const made = make_attribute(object, name, type);
  if (H5Awrite(made.get(), H5T_NATIVE_INT64, &value) < 0) fail_writing(quoted(object, name));
}

std::string File::text_attribute(std::string const& object, std::string const& name) const {
  Id const opened = open_attribute(object, name);
  Id const type(H5Aget_type(opened.get()), &H5Tclose);
  Id const space(H5Aget_space(opened.get()), &H5Sclose);
  FSLLM_CHECK(H5Tget_class(type.get()) == H5T_STRING && H5Sget_simple_extent_npoints(space.get()) == 1,
              "{} of {} is not a text. Make the file again.", quoted(object, name), path_.string());
  auto value = H5Tis_variable_str(type.get()) > 0 ? variable_text(opened, type) : fixed_text(opened, type);
  if (!value) fail_reading(quoted(object, name));
  std::string buffer;
  FSLLM_CHECK(valid_utf8(*value, buffer).data() == value->data(),
              "{} of {} is not UTF-8. Make the file again.", quoted(object, name), path_.string());
  return *std::move(value);
}

int64_t File::int_attribute(std::string const& object, std::string const& name) const {
  Id const opened = open_attribute(object, name);
  Id const type(H5Aget_type(opened.get()), &H5Tclose);
  Id const space(H5Aget_space(opened.get()), &H5Sclose);
  FSLLM_CHECK(H5Tget_class(type.get()) == H5T_INTEGER && H5Sget_simple_extent_npoints(space.get()) == 1,
              "{} of {} is not a whole number. Make the file again.", quoted(object, name), path_.string());
  int64_t value = 0;
  if (H5Aread(opened.get(), H5T_NATIVE_INT64, &value) < 0) fail_reading(quoted(object, name));
  return value;
}

bool File::has_attribute(std::string const& object, std::string const& name) const {
  return exists(object) &&
         H5Aexists_by_name(file_.get(), object.c_str(), name.c_str(), within_file(H5P_LINK_ACCESS).get()) > 0;
}

}  // namespace fsllm::h5
