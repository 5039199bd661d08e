// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>

#include "fsllm/core/error.hpp"
#include "fsllm/io/h5.hpp"

namespace fsllm::h5 {
namespace {

std::string quoted(std::string const& object, std::string const& name) {
  return "attribute " + name + " of " + object;
}

}  // namespace

Id File::open_attribute(std::string const& object, std::string const& name) const {
  Id opened(H5Aopen_by_name(file_.get(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), &H5Aclose);
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
  FSLLM_CHECK(H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0 &&
                  H5Sget_simple_extent_npoints(space.get()) == 1,
              "{} of {} is not a text of fixed length. Make the file again.", quoted(object, name),
              path_.string());
  // One byte more than stored: a foreign file may lack the final zero.
  std::string value(H5Tget_size(type.get()) + 1, '\0');
  if (H5Aread(opened.get(), type.get(), value.data()) < 0) fail_reading(quoted(object, name));
  value.resize(value.find('\0'));
  return value;
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
  return exists(object) && H5Aexists_by_name(file_.get(), object.c_str(), name.c_str(), H5P_DEFAULT) > 0;
}

}  // namespace fsllm::h5
