// SPDX-License-Identifier: Apache-2.0
#include <ctime>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/jinja/jinja.hpp"
#include "interpreter.hpp"

namespace fsllm {

struct JinjaTemplate::Impl {
  std::string name;
  std::tm date{};
  jinja::Block block;
};

bool is_date(std::string const& date) {
  std::tm day{};
  auto const* const end = strptime(date.c_str(), "%Y-%m-%d", &day);
  return date.size() == 10 && end != nullptr && *end == '\0';
}

JinjaTemplate::JinjaTemplate(std::string_view source, std::string name, std::string const& date)
    : impl_(std::make_unique<Impl>()) {
  FSLLM_CHECK(is_date(date), "{}: '{}' is no date. Write it as {}.", name, date, kTemplateDate);
  strptime(date.c_str(), "%Y-%m-%d", &impl_->date);
  impl_->name = std::move(name);
  impl_->block = jinja::parse(source, impl_->name);
}

JinjaTemplate::~JinjaTemplate() = default;
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;

JinjaTemplate::Output JinjaTemplate::render(nlohmann::ordered_json const& variables) const {
  auto const values = jinja::from_json(variables);
  jinja::Interpreter interpreter(impl_->name, impl_->date, *values.dict());
  interpreter.run(impl_->block);
  return {std::move(interpreter.output()), interpreter.generated()};
}

}  // namespace fsllm
